"""Rows of reductions: over the last dimensions row by row, over others down columns."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Int, ceil_div, product
from torch_aio.kernels.chain import DTYPES, Chain, Input, Step
from torch_aio.kernels.reduce import ColumnReduceSpec, RowReduceSpec, columns
from torch_aio.codegen.types import f32
from torch_aio.plan.families.copies import copy
from torch_aio.plan.lowering import Group, Lowering
from torch_aio.plan.row import Row
from torch_aio.plan.row_views import as_rows
from torch_aio.plan.strides import reshaped
from torch_aio.plan.value import Value

aten = torch.ops.aten
REDUCTIONS: dict[Any, str] = {
    aten.sum.default: "sum", aten.sum.dim_IntList: "sum",
    aten.mean.default: "mean", aten.mean.dim: "mean",
    aten.amax.default: "max", aten.amin.default: "min",
    aten.max.default: "max", aten.min.default: "min",
    aten.prod.default: "prod", aten.prod.dim_int: "prod",
    aten.any.default: "any", aten.any.dim: "any", aten.any.dims: "any",
    aten.all.default: "all", aten.all.dim: "all", aten.all.dims: "all",
}  # fmt: skip
WHOLE = frozenset(op for op in REDUCTIONS if op._overloadname == "default") - {
    aten.amax.default,
    aten.amin.default,
}


def lower(ctx: Lowering, group: Group) -> None:
    """Any reduction over any dimensions."""
    node = group.output
    x: Any = node.args[0]
    value, op = ctx.value(x), REDUCTIONS[node.target]
    dims = reduced(node)
    target = ctx.output(node)
    result = target if target.is_contiguous else ctx.temporary(target.shape, target.dtype)
    prologue = _prologue(value.dtype, target.dtype, op)
    split = _down_columns(value, dims)
    if split is None:
        _by_rows(ctx, op, prologue, _reduced_last(value, dims), len(dims), result)
    else:
        _by_columns(ctx, op, prologue, split, result)
    if result is not target:
        copy(ctx, result, target)


def reduced(node: Node) -> tuple[int, ...]:
    """The dimensions that go away, in order."""
    spec: TensorSpec = node.args[0].meta["spec"]  # type: ignore[union-attr]
    given: Any = None
    if node.target not in WHOLE:
        given = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    if given is None or given == [] or given == ():
        return tuple(range(spec.ndim))
    dims = [given] if isinstance(given, int) else list(given)
    return tuple(sorted(d % max(spec.ndim, 1) for d in dims)) if spec.ndim else ()


def _prologue(source: torch.dtype, result: torch.dtype, op: str) -> Chain:
    """The operand in the dtype that is computed in."""
    have = DTYPES[source]
    want = "bool" if op in ("any", "all") else DTYPES[result]
    steps = () if have == want else (Step("cast", (0,), want),)
    return Chain((Input(have, "full"),), steps)


def _by_rows(
    ctx: Lowering, op: str, prologue: Chain, moved: Value, count: int, result: Value
) -> None:
    x = as_rows(ctx, moved, count)
    ctx.step(
        RowReduceSpec(op, prologue, DTYPES[result.dtype]),
        x.shape[0],
        ("y",),
        cols=x.shape[1], x0=x, x0_row=x.byte_stride[0],
        y=result, y_row=result.itemsize,
    )  # fmt: skip


def _by_columns(ctx: Lowering, op: str, prologue: Chain, x: Value, result: Value) -> None:
    outer, depth, inner = x.shape
    x_outer, x_depth, _ = x.byte_stride
    ctx.step(
        ColumnReduceSpec(op, prologue, DTYPES[result.dtype]),
        outer * ceil_div(inner, columns(ctx.isa.lanes(f32))),
        ("y",),
        depth=depth, inner=inner, x=x, x_outer=x_outer, x_depth=x_depth,
        y=result, y_outer=inner * result.itemsize,
    )  # fmt: skip


def _reduced_last(value: Value, dims: tuple[int, ...]) -> Value:
    order = [d for d in range(len(value.shape)) if d not in dims] + list(dims)
    return value.view(tuple(value.shape[d] for d in order), tuple(value.stride[d] for d in order))


def _down_columns(value: Value, dims: tuple[int, ...]) -> Value | None:
    """The value as [outer, depth, inner] with inner adjacent, where the memory allows it."""
    if not dims or dims[-1] == len(value.shape) - 1 or dims != tuple(range(dims[0], dims[-1] + 1)):
        return None
    parts = (value.shape[: dims[0]], value.shape[dims[0] : dims[-1] + 1], value.shape[dims[-1] + 1 :])
    shape: tuple[Int, ...] = tuple(product(part) for part in parts)
    stride = reshaped(value.shape, value.stride, shape)
    if stride is None or (stride[2] != 1 and shape[2] != 1):
        return None
    return value.view(shape, stride)


def accept(node: Node) -> str | None:
    """Any dtype of the chains; the maximum of nothing is eager's error to raise."""
    x: Any = node.args[0]
    spec: TensorSpec = x.meta["spec"]
    if REDUCTIONS[node.target] in ("max", "min") and any(spec.shape[d] == 0 for d in reduced(node)):
        return "the largest of no elements is an error that eager raises"
    if not isinstance(node.meta["spec"], TensorSpec):
        return "a reduction with several results has no kernel"
    if spec.dtype in (torch.float16, torch.bfloat16, torch.float64):
        return f"reductions of {str(spec.dtype).removeprefix('torch.')} have no kernel"
    return None


ROWS: tuple[Row, ...] = tuple(Row(op, "reduce", accept, lower) for op in REDUCTIONS)
