"""Large products with constant weights by Strassen's algorithm: which, and their two steps."""

from __future__ import annotations

import torch

from torch_aio.codegen.types import f32
from torch_aio.ir.symbols import Int, ceil_div
from torch_aio.kernels.pack_strassen import StrassenPanels
from torch_aio.kernels.panel import panel_columns
from torch_aio.kernels.strassen import HalfSums, Strassen, scratch_bytes
from torch_aio.plan.families.blocking import Job, block_rows, chunk_terms, most_work
from torch_aio.plan.lowering import Lowering

SUMS = 1.0
"""Panels that take the time of the sums of A's blocks: 128 x 768 x 768 gains as much as it loses,
128 x 3072 x 768 gains 8 % (Zen 5)."""
FEWEST_ROWS = 64
"""Fewer rows are bound by memory, and weights grow to 7/4."""
LIKELY = 1.1
"""A way whose cost is so many times the least is not tried."""


def candidates(ctx: Lowering, job: Job) -> list[str]:
    """The ways worth trying, the best guess first.

    Who gives weights back wants memory: Strassen's panels take 7/4 of it (BERT-base: 919 MB
    instead of 507).
    """
    space, (k, n) = job.space, job.y.value.shape[-2:]
    width = panel_columns(ctx.isa, job.tile)
    options = ctx.options
    if job.y.node is None or not options.winograd or options.release_weights:
        return ["gemm"]
    rows = space.rows if space.outer == space.inner == 1 else None
    if not (isinstance(rows, int) and isinstance(k, int) and isinstance(n, int)):
        return ["gemm"]
    if rows < FEWEST_ROWS or k % (2 * ctx.isa.lanes(f32)) or n % (2 * width):
        return ["gemm"]
    half, threads = -(-rows // 2), torch.get_num_threads()
    costs = {
        "gemm": _cost(n // width, rows, job.tile),
        "strassen": 3.5 * _cost(n // width // 2, half, job.tile) + SUMS * rows / threads,
    }
    likely = [way for way in costs if costs[way] <= LIKELY * min(costs.values())]
    return sorted(likely, key=costs.__getitem__)


def _cost(panels: int, rows: int, tile: tuple[int, int]) -> float:
    block = block_rows(panels, rows, tile)
    assert isinstance(block, int)
    return most_work(panels, rows, block)


def lower(ctx: Lowering, job: Job) -> None:
    """The sums of A's blocks, then the products."""
    space, tile, y = job.space, job.tile, job.y
    assert y.node is not None
    (k, n), half = y.value.shape[-2:], ceil_div(space.rows, 2)
    width = panel_columns(ctx.isa, tile)
    sums = ctx.temporary((4, half, k // 2), torch.float32, "sums")
    a = {"a": job.x, "a_row": space.strides[0][2], "m": space.rows, "k": k}
    ctx.step(HalfSums(), half, ("sums",), sums=sums, **a)
    panels: Int = n // (2 * width)
    rows = block_rows(panels, half, tile)
    ctx.step(
        Strassen(tile, job.chain), ceil_div(half, rows) * panels, ("c",),
        **a, sums=sums, b=ctx.constant(y.node, StrassenPanels(width, y.transposed)),
        c=job.out, c_row=space.strides[1][2], n=n, chunk=chunk_terms(k // 2), block_rows=rows,
        tiles=ctx.scratch(scratch_bytes(ctx.isa, tile, rows)), **job.epilogue,
    )  # fmt: skip
