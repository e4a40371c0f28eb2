"""Rows of reductions: rows of adjacent elements, or columns, else a copy first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.fx import Node

from torch_aio.codegen.types import f32
from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import ceil_div, product
from torch_aio.kernels.chain import DTYPES, Chain, Input, Step
from torch_aio.kernels.gather import CumsumSpec
from torch_aio.kernels.reduce import ArgReduceSpec, ColumnReduceSpec, RowReduceSpec, columns
from torch_aio.plan.families.copies import copy
from torch_aio.plan.families.pool import lower_adaptive
from torch_aio.plan.lowering import Group, Lowering
from torch_aio.plan.row import Row
from torch_aio.plan.row_views import as_rows
from torch_aio.plan.strides import reshaped
from torch_aio.plan.value import Value

aten = torch.ops.aten
HALVES = (torch.float16, torch.bfloat16)
TRUTH = ("any", "all")

# ---- one value a row ----------------------------------------------------------------------


def reduction(op: str) -> Any:
    """Lowering of ``op(x, dims, keepdim)``."""

    def lower(ctx: Lowering, group: Group) -> None:
        node = group.output
        value, dims = operand(ctx, node)
        target = ctx.output(node)
        prologue = _prologue(op, value.dtype, node.meta["spec"].dtype)
        reduce(ctx, op, prologue, value, dims, kept_of(target, value, dims))

    return lower


def mean(ctx: Lowering, group: Group) -> None:
    """``mean(x, dims, keepdim)``: of blocked planes it is a pool."""
    value, _ = operand(ctx, group.output)
    (lower_adaptive if value.block else reduction("mean"))(ctx, group)


def is_pool(node: Node) -> bool:
    """Whether a mean leaves one pixel of each plane of a blocked tensor."""
    source: Any = node.args[0]
    is_blocked = source.meta.get("layout") == "blocked" and _spec(node).ndim == 4
    return is_blocked and node.args[1:] == ([2, 3], True) and not node.kwargs


def reduce(
    ctx: Lowering, op: str, prologue: Chain, value: Value, dims: list[int], target: Value
) -> None:
    """``target = op over dims of prologue(value)``; the target has the dimensions that are kept."""
    result = DTYPES[target.dtype]
    if target.is_contiguous and _columns(ctx, op, prologue, value, dims, target):
        return
    kept = [d for d in range(len(value.shape)) if d not in dims]
    moved = _permuted(value, [*kept, *dims])
    x = as_rows(ctx, moved, len(dims))
    stride = reshaped(target.shape, target.stride, (x.shape[0],))
    y = target if stride is not None else ctx.temporary(target.shape, target.dtype)
    ctx.step(
        RowReduceSpec(op, prologue, result), x.shape[0], ("y",),
        cols=x.shape[1], y=y, y_row=(stride or (1,))[0] * y.itemsize,
        x0=x, x0_row=x.byte_stride[0],
    )  # fmt: skip
    if y is not target:
        copy(ctx, y, target)


def _columns(
    ctx: Lowering, op: str, prologue: Chain, value: Value, dims: list[int], target: Value
) -> bool:
    """Reduce adjacent dimensions before the last ones without a copy, where they lie so."""
    first, last = min(dims, default=0), max(dims, default=0)
    if last == len(value.shape) - 1 or sorted(dims) != list(range(first, last + 1)):
        return False
    shape = (
        product(value.shape[:first]),
        product(value.shape[first : last + 1]),
        product(value.shape[last + 1 :]),
    )
    stride = reshaped(value.shape, value.stride, shape)
    if stride is None or stride[2] != 1:
        return False
    outer, depth, inner = shape
    ctx.step(
        ColumnReduceSpec(op, prologue, DTYPES[target.dtype]),
        outer * ceil_div(inner, columns(ctx.isa.lanes(f32))),
        ("y",),
        depth=depth, inner=inner, x=value, x_outer=stride[0] * value.itemsize,
        x_depth=stride[1] * value.itemsize, y=target, y_outer=inner * target.itemsize,
    )  # fmt: skip
    return True


# ---- places of extremes, running sums -----------------------------------------------------


def arg_extreme(op: str) -> Any:
    """Lowering of ``argmax(x, dim, keepdim)``, ``argmin``."""

    def lower(ctx: Lowering, group: Group) -> None:
        node = group.output
        value, dims = operand(ctx, node)
        target = kept_of(ctx.output(node), value, dims)
        indices = ctx.temporary(target.shape, torch.int64)
        _extreme(ctx, op, value, dims, {"indices": indices})
        copy(ctx, indices, target)

    return lower


def _extreme(
    ctx: Lowering, op: str, value: Value, dims: list[int], outputs: dict[str, Value]
) -> None:
    kept = [d for d in range(len(value.shape)) if d not in dims]
    x = as_rows(ctx, _permuted(value, [*kept, *dims]), len(dims))
    spec = ArgReduceSpec(op, DTYPES[x.dtype], "values" in outputs, "indices" in outputs)
    rows: dict[str, Any] = {f"{name}_row": y.itemsize for name, y in outputs.items()}
    ctx.step(
        spec, x.shape[0], tuple(outputs),
        cols=x.shape[1], x=x, x_row=x.byte_stride[0], **outputs, **rows,
    )  # fmt: skip


def cumsum(ctx: Lowering, group: Group) -> None:
    """``cumsum(x, dim)``."""
    node = group.output
    source = node.args[0]
    assert isinstance(source, Node)
    target, value = (
        v.view(v.shape or (1,), v.stride or (1,)) for v in (ctx.output(node), ctx.value(source))
    )
    axis: Any = node.args[1]
    dim = int(axis) % len(value.shape)
    order = [*(d for d in range(len(value.shape)) if d != dim), dim]
    if value.dtype != target.dtype:
        wide = ctx.temporary(value.shape, target.dtype)
        copy(ctx, value, wide)
        value = wide
    x = as_rows(ctx, _permuted(value, order))
    moved = _permuted(target, order)
    sums = ctx.temporary(moved.shape, target.dtype)
    y = as_rows(ctx, sums)
    ctx.step(
        CumsumSpec(DTYPES[target.dtype]), x.shape[0], ("y",),
        cols=x.shape[1], x=x, x_row=x.byte_stride[0], x_col=x.itemsize,
        y=y, y_row=y.byte_stride[0], y_col=y.itemsize,
    )  # fmt: skip
    copy(ctx, sums, moved)


# ---- operands -----------------------------------------------------------------------------


def operand(ctx: Lowering, node: Node, position: int = 1) -> tuple[Value, list[int]]:
    """The operand and the reduced dimensions, ascending; all where none are named."""
    source = node.args[0]
    assert isinstance(source, Node)
    value = ctx.value(source)
    given: Any = node.args[position] if len(node.args) > position else node.kwargs.get("dim")
    ndim = len(value.shape)
    if given is None or given == []:
        return value, list(range(ndim))
    named = [given] if isinstance(given, int) else list(given)
    return value, sorted({d % ndim for d in named}) if ndim else []


def kept_of(target: Value, value: Value, dims: list[int]) -> Value:
    """The target without reduced dimensions, whether or not it has them as ones."""
    if len(target.shape) != len(value.shape):
        return target
    return _permuted(target, [d for d in range(len(value.shape)) if d not in dims])


def _permuted(value: Value, order: list[int]) -> Value:
    """The dimensions named in ``order`` (others are of size 1)."""
    return replace(
        value,
        shape=tuple(value.shape[d] for d in order),
        stride=tuple(value.stride[d] for d in order),
    )


def _prologue(op: str, source: torch.dtype, result: torch.dtype) -> Chain:
    """The cast to the type that ``op`` computes in."""
    if op in TRUTH:
        wanted = torch.bool
    else:
        wanted = source if op in ("max", "min") else result
        wanted = torch.float32 if wanted in HALVES else wanted
    have, want = DTYPES[source], DTYPES[wanted]
    return Chain((Input(have, "full"),), (Step("cast", (0,), want),) if have != want else ())


# ---- what is accepted ---------------------------------------------------------------------


def _spec(node: Any) -> Any:
    return node.meta["spec"]


def accept(node: Node) -> str | None:
    """Dtypes that chains know."""
    source: TensorSpec = _spec(node.args[0])
    out = _spec(node)
    for dtype in (source.dtype, out.dtype):
        if dtype not in DTYPES:
            return f"no reduction reads or writes {str(dtype).removeprefix('torch.')}"
    return None


def accept_extreme(node: Node) -> str | None:
    """As ``accept``; no bools, no empty rows."""
    source: TensorSpec = _spec(node.args[0])
    if source.dtype not in DTYPES or source.dtype == torch.bool:
        return f"no extremes of {str(source.dtype).removeprefix('torch.')}"
    return "the extreme of an empty tensor is eager's error" if source.numel == 0 else None


def accept_place(node: Node) -> str | None:
    """As ``accept_extreme``; not of half types."""
    dtype = _spec(node.args[0]).dtype
    if dtype in HALVES:
        return f"no places of extremes in {str(dtype).removeprefix('torch.')}"
    return accept_extreme(node)


def accept_cumsum(node: Node) -> str | None:
    """Not of half types, whose sums eager rounds in its own way."""
    return (
        "running sums of half types have no kernel" if _spec(node).dtype in HALVES else accept(node)
    )


SUMS = {aten.sum.default: "sum", aten.sum.dim_IntList: "sum", aten.mean.default: "mean",
        aten.prod.default: "prod", aten.prod.dim_int: "prod"}  # fmt: skip
TRUTHS = {
    getattr(getattr(aten, name), overload): name
    for name in TRUTH for overload in ("default", "dim", "dims")
}  # fmt: skip
EXTREMES = {aten.amax.default: "max", aten.amin.default: "min",
            aten.max.default: "max", aten.min.default: "min"}  # fmt: skip

ROWS: tuple[Row, ...] = (
    *(Row(op, "reduce", accept, reduction(name)) for op, name in (SUMS | TRUTHS).items()),
    Row(aten.mean.dim, "reduce", accept, mean, layout="blocked", wants_blocked=is_pool),
    *(Row(op, "reduce", accept_extreme, reduction(name)) for op, name in EXTREMES.items()),
    Row(aten.argmax.default, "reduce", accept_place, arg_extreme("max")),
    Row(aten.argmin.default, "reduce", accept_place, arg_extreme("min")),
    Row(aten.cumsum.default, "reduce", accept_cumsum, cumsum),
)
