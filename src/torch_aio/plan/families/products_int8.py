"""The steps of a batched product of matrices in int8, by the shape of the problem.

few rows     ``QuantiseRows`` in two digits, then ``GemvInt8``, bound by the memory of weights
else         ``QuantiseRows``, then ``GemmInt8``; a right operand that is no constant is quantised
             by ``PackPanelsInt8`` at each call
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from torch_aio.codegen.isa import Isa
from torch_aio.ir.spec import contiguous_stride
from torch_aio.ir.symbols import Int, ceil_div, product
from torch_aio.kernels.chain import Chain
from torch_aio.kernels.gemm import scratch_bytes
from torch_aio.kernels.gemm_int8 import GemmInt8
from torch_aio.kernels.gemv_int8 import DIGITS, MOST_ROWS, GemvInt8
from torch_aio.kernels.pack_int8 import HEAD, PackedInt8, PackPanelsInt8
from torch_aio.kernels.panel import panel_columns
from torch_aio.kernels.quantise import QuantiseRows, info_words, row_words
from torch_aio.plan.families.blocking import Right, Tile, block_rows, chunk_terms
from torch_aio.plan.families.copies import contiguous
from torch_aio.plan.families.products import Way, operand_arguments, with_unit_columns
from torch_aio.plan.lowering import Lowering
from torch_aio.plan.matrix_space import MatrixSpace, matrix_space
from torch_aio.plan.value import Argument, Value


def fastest(y: Right, rows: Int) -> Way:
    """The way to multiply ``rows`` rows by y: constants serve few rows as fast as memory does."""
    few = rows <= MOST_ROWS if isinstance(rows, int) else rows == 1
    return _few_rows if y.node is not None and few else _many_rows


def best_tile(isa: Isa) -> Tile:
    """The register tile: all ways to multiply share the panels of a constant."""
    assert isa.dot is not None, isa.name
    rows, vectors = isa.tile[0]
    return min(rows, isa.dot.sums // vectors), vectors


def _few_rows(
    ctx: Lowering, chain: Chain, operands: tuple[Value, ...], y: Right, *, shared: bool
) -> bool:
    product = _Product.of(ctx, operands, y, DIGITS, shared=shared)
    if product is None:
        return False
    space, tile = product.space, best_tile(ctx.isa)
    rows = space.rows if isinstance(space.rows, int) else 1
    ctx.step(
        GemvInt8(rows, tile[1], chain), product.panels, ("c",),
        a_digit=row_words(operands[0].shape[-1]) * 4, **product.arguments,
        **operand_arguments(chain, space, list(operands[2:])),
    )  # fmt: skip
    return True


def _many_rows(
    ctx: Lowering, chain: Chain, operands: tuple[Value, ...], y: Right, *, shared: bool
) -> bool:
    product = _Product.of(ctx, operands, y, 1, shared=shared)
    if product is None:
        return False
    space, tile = product.space, best_tile(ctx.isa)
    rows = block_rows(product.panels, space.rows, tile)
    ctx.step(
        GemmInt8(tile, chain), product.panels * ceil_div(space.rows, rows), ("c",),
        m=space.rows, chunk=chunk_terms(ceil_div(operands[0].shape[-1], 4)), block_rows=rows,
        tiles=ctx.scratch(scratch_bytes(ctx.isa, tile, rows)), **product.arguments,
        **operand_arguments(chain, space, list(operands[2:])),
    )  # fmt: skip
    return True


@dataclass(frozen=True)
class _Product:
    """Quantised operands: ``panels`` of all matrices together, what both kernels are told."""

    space: MatrixSpace
    panels: Int
    arguments: dict[str, Argument]

    @staticmethod
    def of(
        ctx: Lowering, operands: tuple[Value, ...], y: Right, digits: int, *, shared: bool
    ) -> _Product | None:
        """Quantise x (in ``digits``) and y; None where the batches lie too oddly."""
        x, out, *extra = operands
        panels = _panels(ctx, y, best_tile(ctx.isa))
        q, info = _quantised(ctx, x, digits)
        space = matrix_space([q, out, *extra, _seen(panels, out), info], merge_rows=shared)
        if space is None:
            return None
        n, last = out.shape[-1], len(space.strides) - 1
        units = space.outer * space.inner * ceil_div(n, panels.shape[-1])
        arguments: dict[str, Argument] = {
            "a": q, **space.arguments("a", 0), "info": info, **space.arguments("info", last),
            "b": panels, **space.arguments("b", last - 1, row=False),
            "c": out, **space.arguments("c", 1),
            "n": n, "k": ceil_div(x.shape[-1], 4), "inner": space.inner,
        }  # fmt: skip
        return _Product(space, units, arguments)


def _quantised(ctx: Lowering, x: Value, digits: int) -> tuple[Value, Value]:
    """A step that quantises the rows of x [..., m, k], each once: words [..., m, w], [..., m, 2].

    The second are scale and zeros of each row.
    """
    sizes = [1 if _is_zero(s) else size for size, s in zip(x.shape, x.stride, strict=True)]
    once = x.view((*sizes[:-1], x.shape[-1]), x.stride)
    space = matrix_space([once], merge_rows=True)
    if space is None:
        once = contiguous(ctx, once)
        space = matrix_space([once], merge_rows=True)
        assert space is not None
    words, known = row_words(x.shape[-1]), info_words(digits)
    q = ctx.temporary((*once.shape[:-1], digits * words), torch.int32, "bytes")
    info = ctx.temporary((*once.shape[:-1], known), torch.float32, "scales")
    ctx.step(
        QuantiseRows(digits), space.outer * space.inner * space.rows, ("q", "info"),
        x=once, **space.arguments("x", 0), q=q, q_row=words * 4, info=info,
        rows=space.rows, inner=space.inner, k=x.shape[-1],
    )  # fmt: skip
    rows = x.shape[:-1]
    return q.expand((*rows, digits * words)), info.expand((*rows, known))


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
