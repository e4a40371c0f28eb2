"""Rows of norms of vectors, variances and deviations: reductions between elementwise steps."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import product
from torch_aio.kernels.chain import Chain, Const, Input, Step
from torch_aio.plan.families.copies import apply
from torch_aio.plan.families.reduce import kept_of, operand, reduce
from torch_aio.plan.lowering import Group, Lowering
from torch_aio.plan.row import Row

aten = torch.ops.aten


def _source(node: Node) -> TensorSpec:
    source: Any = node.args[0]
    spec: TensorSpec = source.meta["spec"]
    return spec


def vector_norm(ctx: Lowering, group: Group) -> None:
    """``linalg_vector_norm(x, 2, dims, keepdim)``: the root of a sum of squares."""
    node = group.output
    value, dims = operand(ctx, node, position=2)
    target = ctx.output(node)
    square = Chain((Input("f32", "full"),), (Step("mul", (0, 0), "f32"),))
    kept = kept_of(target, value, dims)
    total = ctx.temporary(kept.shape, target.dtype)
    reduce(ctx, "sum", square, value, dims, total)
    apply(ctx, Chain((Input("f32", "full"),), (Step("sqrt", (0,), "f32"),)), [total], kept)


def variance(ctx: Lowering, group: Group) -> None:
    """``var``, ``std`` (x, dims, correction=c, keepdim): the mean, then the squared distances."""
    node = group.output
    value, dims = operand(ctx, node)
    target = ctx.output(node)
    ones = tuple(1 if d in dims else s for d, s in enumerate(value.shape))
    mean = ctx.temporary(ones, target.dtype)
    same = Chain((Input("f32", "full"),))
    reduce(ctx, "mean", same, value, dims, kept_of(mean, value, dims))
    away = ctx.temporary(value.shape, target.dtype)
    both = (Input("f32", "full"), Input("f32", "full"))
    steps = (Step("sub", (0, 1), "f32"), Step("mul", (2, 2), "f32"))
    apply(ctx, Chain(both, steps), [value, mean], away)
    kept = kept_of(target, value, dims)
    total = ctx.temporary(kept.shape, target.dtype)
    reduce(ctx, "sum", same, away, dims, total)
    count: Any = product(tuple(value.shape[d] for d in dims))
    divisor = float(max(count - _correction(node), 0))
    scale: tuple[Step, ...] = (Step("div", (0, Const(divisor)), "f32"),)
    if node.target is aten.std.correction:
        scale += (Step("sqrt", (1,), "f32"),)
    apply(ctx, Chain(both[:1], scale), [total], kept)


def _correction(node: Node) -> float:
    given: Any = node.kwargs.get("correction")
    return 1 if given is None else float(given)


def accept_f32(node: Node) -> str | None:
    """f32 throughout."""
    dtypes = {node.meta["spec"].dtype, _source(node).dtype}
    return None if dtypes == {torch.float32} else "computed for float32 only"


def accept_norm(node: Node) -> str | None:
    """The Euclidean norm."""
    order = node.args[1] if len(node.args) > 1 else node.kwargs.get("ord", 2)
    return accept_f32(node) if order == 2 else f"a vector norm of order {order} has no kernel"


def accept_variance(node: Node) -> str | None:
    """f32 over a number of elements that is known."""
    shape = _source(node).shape
    given: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    dims = [given] if isinstance(given, int) else given or range(len(shape))
    if not all(isinstance(shape[d], int) for d in dims if shape):
        return "the variance over a size that changes has no kernel"
    return accept_f32(node)


ROWS: tuple[Row, ...] = (
    Row(aten.linalg_vector_norm.default, "reduce", accept_norm, vector_norm),
    Row(aten.var.correction, "reduce", accept_variance, variance),
    Row(aten.std.correction, "reduce", accept_variance, variance),
)
