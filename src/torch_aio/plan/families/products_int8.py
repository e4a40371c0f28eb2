"""The steps of a batched product of matrices in int8, by the shape of the problem.

few rows     ``GemvInt8``: f32 rows times quantised weights, whose memory is what bounds it
else         ``QuantiseRows``, then ``GemmInt8``; a right operand that is no constant is quantised
             by ``PackPanelsInt8`` at each call
"""

from __future__ import annotations

import torch

from torch_aio.codegen.isa import Isa
from torch_aio.ir.spec import contiguous_stride
from torch_aio.ir.symbols import Int, ceil_div, product
from torch_aio.kernels.chain import Chain
from torch_aio.kernels.gemm import scratch_bytes
from torch_aio.kernels.gemm_int8 import GemmInt8
from torch_aio.kernels.gemv_int8 import MOST_ROWS, GemvInt8
from torch_aio.kernels.pack_int8 import HEAD, PackedInt8, PackPanelsInt8
from torch_aio.kernels.panel import panel_columns
from torch_aio.kernels.quantise import INFO_BYTES, QuantiseRows, row_words
from torch_aio.plan.families.blocking import Right, Tile, block_rows, chunk_terms
from torch_aio.plan.families.copies import contiguous
from torch_aio.plan.families.products import Way, operand_arguments, with_unit_columns
from torch_aio.plan.lowering import Lowering
from torch_aio.plan.matrix_space import matrix_space
from torch_aio.plan.value import Value


def fastest(y: Right, rows: Int) -> Way:
    """The way to multiply ``rows`` rows by y: constants alone are quantised where rows are few."""
    few = rows <= MOST_ROWS if isinstance(rows, int) else rows == 1
    return _few_rows if y.node is not None and few else _many_rows


def best_tile(isa: Isa) -> Tile:
    """The register tile: all ways to multiply share the panels of a constant."""
    return isa.tile[0]


def _few_rows(
    ctx: Lowering, chain: Chain, operands: tuple[Value, ...], y: Right, *, shared: bool
) -> bool:
    x, out, *extra = operands
    n, tile = out.shape[-1], best_tile(ctx.isa)
    panels = _panels(ctx, y, tile)
    space = matrix_space([x, out, *extra, _seen(panels, out)], merge_rows=shared)
    if space is None:
        return False
    rows = space.rows if isinstance(space.rows, int) else 1
    ctx.step(
        GemvInt8(rows, tile[1], chain),
        space.outer * space.inner * ceil_div(n, panel_columns(ctx.isa, tile)), ("y",),
        x=x, **space.arguments("x", 0), y=out, **space.arguments("y", 1),
        w=panels, **space.arguments("w", len(operands), row=False),
        n=n, k=x.shape[-1], inner=space.inner, **operand_arguments(chain, space, extra),
    )  # fmt: skip
    return True


def _many_rows(
    ctx: Lowering, chain: Chain, operands: tuple[Value, ...], y: Right, *, shared: bool
) -> bool:
    x, out, *extra = operands
    n, words, tile = out.shape[-1], ceil_div(x.shape[-1], 4), best_tile(ctx.isa)
    panels = _panels(ctx, y, tile)
    q, info = _quantised(ctx, x)
    space = matrix_space([q, out, *extra, _seen(panels, out), info], merge_rows=shared)
    if space is None:
        return False
    last, width = len(space.strides) - 1, panel_columns(ctx.isa, tile)
    units = space.outer * space.inner * ceil_div(n, width)
    rows = block_rows(units, space.rows, tile)
    ctx.step(
        GemmInt8(tile, chain), units * ceil_div(space.rows, rows), ("c",),
        a=q, **space.arguments("a", 0), info=info, **space.arguments("info", last),
        b=panels, **space.arguments("b", last - 1, row=False),
        c=out, **space.arguments("c", 1),
        m=space.rows, n=n, k=words, inner=space.inner, chunk=chunk_terms(words), block_rows=rows,
        tiles=ctx.scratch(scratch_bytes(ctx.isa, tile, rows)),
        **operand_arguments(chain, space, extra),
    )  # fmt: skip
    return True


def _quantised(ctx: Lowering, x: Value) -> tuple[Value, Value]:
    """A step that quantises the rows of x [..., m, k], each once: words [..., m, w], [..., m, 2].

    The second are scale and zero of each row.
    """
    sizes = [1 if _is_zero(s) else size for size, s in zip(x.shape, x.stride, strict=True)]
    once = x.view((*sizes[:-1], x.shape[-1]), x.stride)
    space = matrix_space([once], merge_rows=True)
    if space is None:
        once = contiguous(ctx, once)
        space = matrix_space([once], merge_rows=True)
        assert space is not None
    words = row_words(x.shape[-1])
    q = ctx.temporary((*once.shape[:-1], words), torch.int32, "bytes")
    info = ctx.temporary((*once.shape[:-1], INFO_BYTES // 4), torch.float32, "scales")
    ctx.step(
        QuantiseRows(), space.outer * space.inner * space.rows, ("q", "info"),
        x=once, **space.arguments("x", 0), q=q, q_row=words * 4, info=info,
        rows=space.rows, inner=space.inner, k=x.shape[-1],
    )  # fmt: skip
    rows = x.shape[:-1]
    return q.expand((*rows, words)), info.expand((*rows, INFO_BYTES // 4))


def _panels(ctx: Lowering, y: Right, tile: Tile) -> Value:
    """The panels of y [..., k, n]: i32 [..., panels, words, W]."""
    width = panel_columns(ctx.isa, tile)
    if y.node is not None:
        return ctx.constant(y.node, PackedInt8(width, y.transposed))
    rows = with_unit_columns(ctx, y.value)
    space = matrix_space([rows], merge_rows=False)
    if space is None:
        rows = contiguous(ctx, rows)
        space = matrix_space([rows], merge_rows=False)
        assert space is not None
    *batch, k, n = y.value.shape
    count = ceil_div(n, width)
    shape = (*batch, count, ceil_div(k, 4) + HEAD, width)
    packed = ctx.temporary(shape, torch.int32, "panels")
    ctx.step(
        PackPanelsInt8(tile[1]), space.outer * space.inner * count, ("y",),
        x=rows, **space.arguments("x", 0), y=packed, k=k, n=n, inner=space.inner,
    )  # fmt: skip
    return packed


def _seen(panels: Value, out: Value) -> Value:
    """The batches of panels in the space of the result."""
    *batch, count, words, width = panels.shape
    stride = contiguous_stride((*batch, product((count, words, width))))[:-1]
    return panels.view((*batch, 1, 1), (*stride, 0, 1)).expand(out.shape)


def _is_zero(size: Int) -> bool:
    return isinstance(size, int) and size == 0
