"""The steps of a batched product of matrices, by the shape of the problem.

few rows     ``Gemv`` or ``GemvColumns``: the right operand is read once, as it lies
else         ``Gemm``: the right operand in panels, packed once (a constant) or by a step; or, where
             it is a constant and the product large, ``Strassen``
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from torch_aio.codegen.isa import Isa
from torch_aio.codegen.types import f32
from torch_aio.ir.spec import contiguous_stride
from torch_aio.ir.symbols import Int, ceil_div, product
from torch_aio.kernels.chain import DTYPES, Chain
from torch_aio.kernels.gemm import Gemm, scratch_bytes
from torch_aio.kernels.gemv import MOST_ROWS, Gemv, GemvColumns, column_vectors
from torch_aio.kernels.pack_gemm import PackedPanels, PackPanels
from torch_aio.kernels.panel import panel_columns
from torch_aio.plan.families import strassen
from torch_aio.plan.families.blocking import Job, Right, Tile, block_rows, chunk_terms
from torch_aio.plan.families.copies import contiguous
from torch_aio.plan.lowering import Lowering
from torch_aio.plan.matrix_space import MatrixSpace, matrix_space
from torch_aio.plan.value import Argument, Value

Way = Callable[..., bool]
"""``way(ctx, chain, (x, out, *extra), y, shared=...)``: False where the batches lie too oddly."""


def fastest(y: Right, rows: Int) -> Way:
    """The way to multiply ``rows`` rows by y."""
    return _few_rows if _is_few(y, rows) else _many_rows


def multiply(
    ctx: Lowering, chain: Chain, x: Value, y: Right, out: Value, extra: list[Value],
    pick: Callable[[Right, Int], Way] = fastest,
) -> None:  # fmt: skip
    """``out = chain(x @ y, *extra)``: x [..., m, k], y [..., k, n], extra as out: [..., m, n]."""
    if any(isinstance(size, int) and size == 0 for size in out.shape):
        return
    batch, m = out.shape[:-2], out.shape[-2]
    x = with_unit_columns(ctx, x)
    x = x.expand((*batch, m, x.shape[-1]))
    columns = zip(chain.inputs[1:], extra, strict=True)
    extra = [
        value if operand.access in ("scalar", "row") else with_unit_columns(ctx, value)
        for operand, value in columns
    ]
    shared = all(_is_one(size) for size in y.value.shape[:-2])
    rows = product((*batch, m)) if shared else m
    way = pick(y, rows)
    if not way(ctx, chain, (x, out, *extra), y, shared=shared):
        # the batches lie so that no two strides describe them all: dense copies do
        dense = contiguous(ctx, y.value.expand((*batch, *y.value.shape[-2:])), torch.float32)
        copies = [contiguous(ctx, value) for value in (x, *extra)]
        way(ctx, chain, (copies[0], out, *copies[1:]), Right(dense, None, False), shared=False)


def _is_few(y: Right, rows: Int) -> bool:
    """Whether y is better read as it lies.

    Panels of a constant serve 2 rows or more faster (Zen 5, 4096 x 4096, 4 rows: 34 against 25
    GB/s), and one row where its terms do not lie together; any others have to be packed first.
    """
    most = MOST_ROWS
    if y.node is not None:
        most = 1 if is_unit(y.value, -2) else 0
    return rows <= most if isinstance(rows, int) else most > 0 and rows == 1


def _few_rows(
    ctx: Lowering, chain: Chain, operands: tuple[Value, ...], y: Right, *, shared: bool
) -> bool:
    """y is read as it lies; False where the batches need another layout."""
    x, out, *extra = operands
    value, by_columns = _readable(ctx, y)
    space = matrix_space([x, out, *extra, _seen(value, value.stride[:-2], out)], merge_rows=shared)
    if space is None:
        return False
    rows = space.rows if isinstance(space.rows, int) else 1
    kernel = GemvColumns(rows, chain) if by_columns else Gemv(rows, chain, DTYPES[value.dtype])
    columns = ctx.isa.lanes(f32) * (column_vectors(ctx.isa, rows) if by_columns else 1)
    w_row = value.byte_stride[-2 if by_columns else -1]
    ctx.step(
        kernel, space.outer * space.inner * ceil_div(out.shape[-1], columns), ("y",),
        x=x, **space.arguments("x", 0), y=out, **space.arguments("y", 1),
        w=value, w_row=w_row, **space.arguments("w", len(operands), row=False),
        n=out.shape[-1], k=x.shape[-1], inner=space.inner,
        **operand_arguments(chain, space, extra),
    )  # fmt: skip
    return True


def _many_rows(
    ctx: Lowering, chain: Chain, operands: tuple[Value, ...], y: Right, *, shared: bool
) -> bool:
    """y in panels; False where the batches need another layout."""
    x, out, *extra = operands
    k, n = y.value.shape[-2:]
    tile = best_tile(ctx.isa, n)
    width = panel_columns(ctx.isa, tile)
    stride = contiguous_stride((*y.value.shape[:-2], ceil_div(n, width) * k * width))[:-1]
    space = matrix_space([x, out, *extra, _seen(y.value, stride, out)], merge_rows=shared)
    if space is None:
        return False
    job = Job(chain, x, out, y, space, tile, operand_arguments(chain, space, extra))
    ways = {"gemm": partial(_gemm, ctx, job), "strassen": partial(strassen.lower, ctx, job)}
    question = f"product {space.rows}x{n}x{k} {chain.name}".rstrip()
    ways[ctx.choose(question, strassen.candidates(ctx, job))]()
    return True


def _gemm(ctx: Lowering, job: Job) -> None:
    space, tile, y = job.space, job.tile, job.y
    k, n = y.value.shape[-2:]
    width = panel_columns(ctx.isa, tile)
    panels = ceil_div(n, width)
    if y.node is not None:
        packed = ctx.constant(y.node, PackedPanels(width, y.transposed))
    else:
        packed = pack_panels(ctx, y.value, tile)
    rows = block_rows(space.outer * space.inner * panels, space.rows, tile)
    ctx.step(
        Gemm(tile, job.chain),
        space.outer * space.inner * ceil_div(space.rows, rows) * panels,
        ("c",),
        a=job.x, **space.arguments("a", 0), c=job.out, **space.arguments("c", 1),
        b=packed, **space.arguments("b", len(space.strides) - 1, row=False),
        m=space.rows, n=n, k=k, inner=space.inner, chunk=chunk_terms(k), block_rows=rows,
        tiles=ctx.scratch(scratch_bytes(ctx.isa, tile, rows)), **job.epilogue,
    )  # fmt: skip


def pack_panels(ctx: Lowering, value: Value, tile: Tile) -> Value:
    """A step that packs [..., k, n] into dense panels [..., ceil(n / W), k, W]."""
    transposed = not is_unit(value, -1) and is_unit(value, -2)
    rows = swapped(value) if transposed else with_unit_columns(ctx, value)
    space = matrix_space([rows], merge_rows=False)
    if space is None:
        rows = contiguous(ctx, rows)
        space = matrix_space([rows], merge_rows=False)
        assert space is not None
    k, n = value.shape[-2:]
    width = panel_columns(ctx.isa, tile)
    panels = ceil_div(n, width)
    batch = space.outer * space.inner
    packed = ctx.temporary((batch, panels, k, width), value.dtype, "panels")
    ctx.step(
        PackPanels(tile[1], transposed), batch * panels, ("y",),
        x=rows, **space.arguments("x", 0), y=packed, k=k, n=n, inner=space.inner,
    )  # fmt: skip
    return packed


def best_tile(isa: Isa, columns: Int) -> Tile:
    """The register tile for a number of columns: a wide one, but where it would pad much.

    1x to 1.1x of a narrow one's speed where A streams (Zen 5: 6x4 0.89, 12x2 0.86 of the peak).
    """
    widest = max(isa.tile, key=lambda tile: tile[1])
    if not isinstance(columns, int):
        return widest

    def cost(tile: Tile) -> float:
        width = panel_columns(isa, tile)
        return -(-columns // width) * width * (1.0 if tile == widest else 1.08)

    return min(isa.tile, key=cost)


def is_unit(value: Value, dim: int) -> bool:
    """Whether the elements of a dimension lie together."""
    return _is_one(value.shape[dim]) or value.stride[dim] == 1


def with_unit_columns(ctx: Lowering, value: Value) -> Value:
    """The value, copied where the elements of its last dimension do not lie together."""
    return value if is_unit(value, -1) else contiguous(ctx, value)


def swapped(value: Value) -> Value:
    """The last two dimensions exchanged."""
    *shape, rows, columns = value.shape
    *stride, row, column = value.stride
    return value.view((*shape, columns, rows), (*stride, column, row))


def _readable(ctx: Lowering, y: Right) -> tuple[Value, bool]:
    """y [..., k, n] with adjacent terms or (True) adjacent columns."""
    for dim, by_columns in ((-2, False), (-1, True)):
        if is_unit(y.value, dim):
            return y.value, by_columns
    return contiguous(ctx, y.value), True


def _seen(value: Value, stride: tuple[Int, ...], out: Value) -> Value:
    """The batches of a right operand, ``stride`` elements apart, in the space of the result."""
    batch = value.view((*value.shape[:-2], 1, 1), (*stride, 0, 1))
    return batch.expand(out.shape)


def operand_arguments(chain: Chain, space: MatrixSpace, extra: list[Value]) -> dict[str, Argument]:
    """The arguments of an epilogue's operands, which follow x and the result in ``space``."""
    arguments: dict[str, Argument] = {}
    for n, (operand, value) in enumerate(zip(chain.inputs[1:], extra, strict=True), 1):
        arguments[f"e{n}"] = value
        if operand.access != "scalar":
            row = operand.access != "channel"
            arguments.update(space.arguments(f"e{n}", n + 1, row=row))
    return arguments


def _is_one(size: Int) -> bool:
    return isinstance(size, int) and size == 1
