"""Winograd convolutions: which F(m x m, 3 x 3) are worth trying, and the step."""

from __future__ import annotations

import torch

from torch_aio.codegen.isa import Isa
from torch_aio.codegen.types import f32
from torch_aio.ir.symbols import Int, ceil_div, product
from torch_aio.kernels.cook_toom import POINTS, TAPS, PackWinograd, taps_of
from torch_aio.kernels.winograd import Winograd, scratch_bytes, tile_table
from torch_aio.plan.families.windows import (
    Job,
    operand_arguments,
    origin,
    planes,
    strides_of,
)
from torch_aio.plan.lowering import Lowering
from torch_aio.plan.value import Value

TILES_A_BLOCK = 49
"""Tiles a unit: V and weights are read from L2 and L3 often enough apart (16 to 98 are alike up to
128 channels, 28 to 98 above; Zen 5)."""
STREAMED = 1 << 21
"""Bytes of weights from which prefetching pays: 14x14x512 1.22 -> 1.06 ms, 56x56x64 loses 3 %."""
BYTE = 8.0
"""Multiply-adds that take the time of a byte of weights streamed from memory (Zen 5, two cores)."""
TRANSFORM = 7.0
"""Multiply-adds that take the time of transforming one number (Zen 5)."""
UNLIKELY = 1.6
"""Ways whose cost is so many times the least are not tried."""
FEWEST_INPUTS = 16
"""Fewer input channels do not pay for the transforms."""
ROWS: dict[str, dict[tuple[int, int], float]] = {
    "avx512": {(5, 4): 1.0, (6, 4): 0.98, (4, 4): 0.97, (8, 2): 0.97},
    "avx2": {(6, 2): 1.0, (4, 2): 0.9},
    "neon": {(5, 4): 1.0, (4, 4): 0.97, (7, 3): 0.96, (8, 2): 0.92},
}
"""Register tiles of the products (tiles x vectors) and their speed relative to the best.

us on 28x28x512, F(4x4), and 7x7x512, F(2x2), Zen 5: 5x4 1959/347, 6x4 2146/328, 4x4 2286/312, 8x2
2617/321, 10x2 2554/424. NEON by llvm-mca for a Neoverse N1 (``benchmarks.static``): share of the
peak 5x4 0.97, 4x4 0.94, 7x3 0.93, 8x2 0.89, 5x3 0.88, 6x2 0.82."""


def candidates(ctx: Lowering, job: Job, x: Value) -> list[int]:
    """m of each F(m x m, 3 x 3) worth trying (0: direct convolution), the best guess first."""
    conv = job.conv
    is_ours = (conv.kernel, conv.dilation, conv.groups) == ((TAPS, TAPS), (1, 1), 1)
    is_square = conv.stride[0] == conv.stride[1] and conv.stride[0] in POINTS
    if not (ctx.options.winograd and is_ours and is_square and x.block):
        return [0]
    if conv.inputs < FEWEST_INPUTS:
        return [0]
    costs = {o: _cost(ctx.isa, job, o) for o in (0, *POINTS[conv.stride[0]])}
    likely = [o for o in costs if costs[o] <= UNLIKELY * min(costs.values())]
    return sorted(likely, key=costs.__getitem__)


def _cost(isa: Isa, job: Job, outputs: int) -> float:
    """Multiply-adds, and what streaming the weights and transforming takes, in their time."""
    n, _, height, width = (s if isinstance(s, int) else 256 for s in planes(job.target.shape))
    inner, outer = job.conv.inputs, job.conv.outputs
    if not outputs:
        return inner * outer * TAPS**2 * (n * height * width + BYTE)
    tiles = n * -(-height // outputs) * -(-width // outputs)
    rows, _ = best_tile(isa, tiles, job.vectors(isa))
    whole = -(-tiles // rows) * rows
    taps = taps_of(outputs, job.conv.stride[0]) ** 2
    return taps * (inner * outer * (whole + BYTE) + TRANSFORM * tiles * (inner + outer))


def best_tile(isa: Isa, tiles: Int, vectors: int) -> tuple[int, int]:
    """The register tile for so many tiles and vectors of output channels."""

    def cost(tile: tuple[int, int]) -> float:
        rows, across = tile
        count = tiles if isinstance(tiles, int) else TILES_A_BLOCK
        whole = -(-count // rows) * rows * -(-vectors // across) * across
        return whole / ROWS[isa.name][tile]

    return min(ROWS[isa.name], key=cost)


def _blocks(tiles: Int, panels: Int, rows: int) -> Int:
    """Blocks of tiles: few enough to fill them, and a unit for every thread where tiles allow."""
    usual = ceil_div(tiles, TILES_A_BLOCK)
    if not (isinstance(tiles, int) and isinstance(panels, int)):
        return usual
    return max(usual, min(-(-torch.get_num_threads() // panels), tiles // rows))


def lower(ctx: Lowering, job: Job, x: Value, outputs: int) -> None:
    """The step of F(outputs^2, 3^2)."""
    conv, target, stride = job.conv, job.target, job.conv.stride[0]
    block, lanes = ctx.isa.block, ctx.isa.lanes(f32)
    n, _, height, width = planes(target.shape)
    images, batch = (n, 1) if job.shares_channels else (1, n)
    tiles = product((images, ceil_div(height, outputs), ceil_div(width, outputs)))
    vectors = job.vectors(ctx.isa)
    tile = best_tile(ctx.isa, tiles, vectors)
    panels = -(-vectors // tile[1])
    blocks = _blocks(tiles, batch * panels, tile[0])
    in_blocks = -(-conv.inputs // block)
    pack = PackWinograd(outputs, stride, block, tile[1] * lanes)
    weights = conv.inputs * conv.outputs * 4 * taps_of(outputs, stride) ** 2
    spec = Winograd(
        outputs, stride, tile, bool(conv.outputs % block), weights >= STREAMED, job.chain
    )
    image, _, row, pixel = x.byte_stride
    steps = image, stride * row, stride * pixel
    ctx.step(
        spec,
        batch * blocks * panels,
        ("y",),
        x=origin(x, conv.padding, x.byte_stride), **strides_of("x", x),
        y=target, **strides_of("y", target),
        w=job.packed(ctx, pack),
        table=ctx.table(tile_table, outputs, images, height, width, *steps, *job.result_strides),
        tiles=tiles, channels=conv.outputs, in_blocks=in_blocks, out_vectors=vectors,
        tiles_a_block=ceil_div(tiles, blocks),
        work=ctx.scratch(scratch_bytes(ctx.isa, spec, TILES_A_BLOCK, in_blocks)),
        **operand_arguments(job.chain, job.operands, n, rows=True),
    )  # fmt: skip
