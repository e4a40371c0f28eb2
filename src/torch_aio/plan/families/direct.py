"""Direct convolutions of groups of whole channel blocks, the input blocked or planar."""

from __future__ import annotations

import math
from dataclasses import replace

from torch_aio.codegen.types import f32
from torch_aio.ir.symbols import Int, product
from torch_aio.kernels.conv import Conv as ConvSpec
from torch_aio.kernels.pack_conv import PackConv
from torch_aio.kernels.reorder import PadPlanar
from torch_aio.plan.families.reorder import plane_strides, planes
from torch_aio.plan.families.tiling import Tiles, tilings
from torch_aio.plan.families.windows import Conv, Job, operand_arguments, origin
from torch_aio.plan.lowering import Lowering
from torch_aio.plan.value import Argument, Value

MOST_COLUMNS = 16
"""Taps of a row that the planar kernel unrolls."""
TERMS = 160
"""Products summed before they are added to the rest (see ``kernels.conv``)."""
TILES_A_BLOCK = 32
"""Register tiles for one pass over the weights: 16 to 64 are alike (ResNet-50, Zen 5)."""
FEW_TILES = 64
"""Register tiles below which a panel is a unit: an odd one would leave a thread idle."""
STREAMED = 1 << 18
"""Bytes of weights from which prefetching the next panel pays: 7x7x512 158 -> 193 GF/s (Zen 5)."""
SMALL_PLANE = 512
"""Pixels up to which the images of a batch share their register tiles."""


def ways(ctx: Lowering, job: Job, x: Value) -> list[Tiles]:
    """Register tiles worth trying, the best guess first."""
    conv = job.conv
    terms = math.prod(conv.kernel) * (conv.inputs // conv.groups)
    return tilings(ctx.isa, job, x, job.vectors(ctx.isa), is_whole=terms <= TERMS)


def lower(ctx: Lowering, job: Job, x: Value, tiles: Tiles) -> None:
    """The step, and one that pads a planar input where it needs padding."""
    conv, target, tile = job.conv, job.target, tiles.tile
    if x.block:
        strides, columns = x.byte_stride, 0
    else:
        x, strides = _planar(ctx, x, conv)
        columns = max(n for n in range(1, MOST_COLUMNS + 1) if conv.kernel[1] % n == 0)
    lanes, block = ctx.isa.lanes(f32), ctx.isa.block
    inner, vectors = conv.inputs // conv.groups, job.vectors(ctx.isa)
    c_in = 1 if columns else block
    n, _, height, width = planes(target.shape)
    is_small = isinstance(height * width, int) and height * width < SMALL_PLANE
    images, batch = (n, 1) if is_small and job.shares_channels else (1, n)
    batches: dict[str, Argument] = {"x_batch": strides[0], "y_batch": target.byte_stride[0]}
    if job.samples:
        images, batch, batches = n, job.samples.count, _apart(job)
    count = tiles.count(images * height * width)
    panels = -(-vectors // tile[1]) * conv.groups
    panels_a_unit = 1 if splits_panels(conv, x, target, count) else panels
    spec = ConvSpec(tile, columns, conv.dilation[1] if columns else 1, tiles.step,
                    bool(conv.outputs % block), job.chain)  # fmt: skip
    ctx.step(
        spec,
        -(-panels // panels_a_unit) * batch * count,
        ("y",),
        x=origin(x, conv.padding, strides), x_block=strides[1],
        tap_row=conv.dilation[0] * strides[2],
        tap_column=conv.dilation[1] * strides[3] * max(columns, 1),
        w=job.packed(ctx, PackConv(conv.groups, block, c_in, tile[1] * lanes)),
        y=target, y_block=target.byte_stride[1],
        table=tiles.table(ctx, job, images, strides), batch=batch, pixels=count * tile[0],
        channels=conv.outputs, groups=conv.groups, in_blocks=-(-inner // c_in),
        last_terms=(inner - 1) % c_in + 1,
        out_vectors=vectors, kernel_h=conv.kernel[0], kernel_w=conv.kernel[1] // max(columns, 1),
        chunk=_chunk(-(-inner // c_in), math.prod(conv.kernel) * c_in),
        panels_a_unit=panels_a_unit, tiles_a_block=TILES_A_BLOCK,
        prefetch=int(weight_bytes(conv) >= STREAMED),
        **(operand_arguments(job.chain, job.operands, n, rows=False) | batches),
    )  # fmt: skip


def _apart(job: Job) -> dict[str, Argument]:
    """How far apart the samples of the input, the result and the epilogue's operands are."""
    assert job.samples is not None
    full = iter(job.samples.operands)
    inputs = enumerate(job.chain.inputs[1:], 1)
    operands = {f"e{n}_batch": next(full) for n, operand in inputs if operand.access == "full"}
    return {"x_batch": job.samples.x, "y_batch": job.samples.y, **operands}


def _planar(ctx: Lowering, x: Value, conv: Conv) -> tuple[Value, tuple[Int, ...]]:
    """A plain input as the planar kernel reads it: rows dense, padding in memory around it."""
    strides = plane_strides(x)
    if conv.halo == (0, 0) and strides[3] == x.itemsize:
        return x, strides
    n, channels, height, width = planes(x.shape)
    (top, left), (bottom, right) = conv.padding, conv.halo
    padded = ctx.temporary(
        (n, channels, height + top + bottom, width + left + right), x.dtype, "pad"
    )
    x_n, x_c, x_h, x_w = strides
    y_n, y_c, y_row, y_pixel = padded.byte_stride
    ctx.step(
        PadPlanar(dense=x_w == x.itemsize),
        product((n, channels, height + top + bottom)),
        ("y",),
        x=x, x_n=x_n, x_c=x_c, x_h=x_h, x_w=x_w, y=padded, y_n=y_n, y_c=y_c, y_row=y_row,
        channels=channels, height=height, width=width,
        top=top, bottom=bottom, left=left, right=right,
    )  # fmt: skip
    inside = top * y_row + left * y_pixel
    return replace(padded, offset=padded.offset + inside), padded.byte_stride


def _chunk(blocks: int, terms: int) -> int:
    """Input blocks a chunk: at most ``TERMS`` products, chunks of even size."""
    most = max(1, TERMS // terms)
    return -(-blocks // -(-blocks // most))


def weight_bytes(conv: Conv) -> int:
    """Bytes of the weights in f32."""
    return conv.flops * 2


def splits_panels(conv: Conv, x: Value, y: Value, tiles: Int) -> bool:
    """Whether threads should share the pixels and split the output channels.

    So where the weights are larger than the data, and where there are few tiles.
    """
    elements = product(x.shape) + product(y.shape)
    if not isinstance(elements, int) or not isinstance(tiles, int):
        return weight_bytes(conv) > 1 << 20
    return weight_bytes(conv) > elements * 4 or tiles < FEW_TILES
