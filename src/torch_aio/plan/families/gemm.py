"""Rows of matrix products: linear layers, matmul of any ranks, and their scaled sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Int, product
from torch_aio.kernels.chain import Const
from torch_aio.plan.families import products_int8
from torch_aio.plan.families.blocking import Right
from torch_aio.plan.families.copies import copy
from torch_aio.plan.families.products import fastest, multiply, swapped
from torch_aio.plan.lowering import Group, Lowering
from torch_aio.plan.row import Row
from torch_aio.plan.trace import ChainTrace, Ref
from torch_aio.plan.value import Value

aten = torch.ops.aten


@dataclass(frozen=True)
class Sum:
    """``alpha * (x @ y) + beta * c``; ``transposed``: y is a linear layer's [n, k]."""

    x: Node
    y: Node
    c: Node | None = None
    alpha: float = 1
    beta: float = 1
    transposed: bool = False


def parse(node: Node) -> Sum:
    """The operands of a node of this family."""
    args: list[Any] = list(node.args)
    if node.target is aten.linear.default:
        return Sum(args[0], args[1], args[2] if len(args) > 2 else None, transposed=True)
    if node.target in _SUMS:
        numbers = {name: node.kwargs.get(name, 1) for name in ("alpha", "beta")}
        return Sum(args[1], args[2], args[0], **numbers)  # type: ignore[arg-type]
    return Sum(args[0], args[1])


def accept(node: Node) -> str | None:
    """Products of f32 tensors."""
    operands = parse(node)
    tensors = [n.meta["spec"] for n in (operands.x, operands.y, operands.c) if n is not None]
    other = [t.dtype for t in tensors if t.dtype != torch.float32]
    if other:
        return f"matrix products of {str(other[0]).removeprefix('torch.')} have no kernel"
    if operands.transposed and tensors[1].ndim != 2:
        return "the weight is not a matrix"
    if not all(isinstance(number, (int, float)) for number in (operands.alpha, operands.beta)):
        return "alpha or beta is not a number"
    return None


def flops(node: Node) -> Int:
    """Two operations a product."""
    spec: TensorSpec = node.meta["spec"]
    x: TensorSpec = parse(node).x.meta["spec"]
    return 2 * product(spec.shape) * x.shape[-1]


def lower(ctx: Lowering, group: Group) -> None:
    """The product, with what follows it in registers."""
    assert group.anchor is not None
    operands = parse(group.anchor)
    chain, extra = ctx.epilogue(group, _trace(group.anchor, operands), channel=-1)
    target = ctx.output(group.output)
    out = target
    if not target.is_contiguous:
        out = ctx.temporary(target.shape, target.dtype, "product")
    x, y = ctx.value(operands.x), _right(ctx, operands)
    pick = products_int8.fastest if is_int8(ctx, group.anchor) else fastest
    multiply(ctx, chain, *_as_matrices(x, y, out, extra), pick)
    if out is not target:
        copy(ctx, out, target)


def is_int8(ctx: Lowering, node: Node) -> bool:
    """Whether a node that pass ``quantise`` marked runs in int8 here."""
    return bool(node.meta.get("int8")) and ctx.isa.dot is not None


def _trace(anchor: Node, operands: Sum) -> ChainTrace:
    """The accumulator, scaled, plus the scaled bias."""
    trace, dtype = ChainTrace(), torch.float32
    value: Ref = trace.accumulator(anchor, dtype)
    if operands.alpha != 1:
        value = trace.step("mul", (value, Const(operands.alpha)), dtype)
    if operands.c is not None and operands.beta != 0:
        bias: Ref = trace.input(operands.c, dtype)
        if operands.beta != 1:
            bias = trace.step("mul", (bias, Const(operands.beta)), dtype)
        value = trace.step("add", (value, bias), dtype)
    trace.values[anchor] = value
    return trace


def _right(ctx: Lowering, operands: Sum) -> Right:
    """The right operand as [..., k, n]; a linear layer's weight may be of half precision."""
    node = operands.y
    value = ctx.value(_narrow(ctx, node) if operands.transposed else node)
    if operands.transposed:
        value = value.view((value.shape[1], value.shape[0]), (value.stride[1], value.stride[0]))
    return Right(value, node if ctx.is_constant(node) else None, operands.transposed)


def _narrow(ctx: Lowering, node: Node) -> Node:
    """The half-precision constant that a constant is widened from, or itself.

    Panels are packed of the widened one; what reads a weight as it lies reads half the bytes.
    """
    source = node.args[0] if node.target is aten._to_copy.default else node
    if not isinstance(source, Node) or not ctx.is_constant(source):
        return node
    dtypes = (source.meta["spec"].dtype, node.meta["spec"].dtype)
    is_widened = dtypes[0] in (torch.float16, torch.bfloat16) and dtypes[1] == torch.float32
    return source if is_widened else node


def _as_matrices(
    x: Value, y: Right, out: Value, extra: list[Value]
) -> tuple[Value, Right, Value, list[Value]]:
    """Vectors as matrices: x [k] is one row; y [k] and x exchange their roles, x being [n][k]."""
    results = [out, *extra]
    if len(y.value.shape) == 1:
        matrix = x if len(x.shape) > 1 else unsqueeze(x, 0)
        if len(x.shape) == 1:
            results = [unsqueeze(value, 0) for value in results]
        results = [unsqueeze(value, -1) for value in results]
        turned = Right(swapped(matrix), None, False)
        return unsqueeze(y.value, 0), turned, results[0], results[1:]
    if len(x.shape) == 1:
        results = [unsqueeze(value, -1) for value in results]
        x = unsqueeze(x, 0)
    return x, y, results[0], results[1:]


def unsqueeze(value: Value, dim: int) -> Value:
    """A dimension of one before dimension ``dim``."""
    place = dim % len(value.shape) if value.shape else 0
    shape, stride = list(value.shape), list(value.stride)
    shape.insert(place, 1)
    stride.insert(place, 0)
    return value.view(tuple(shape), tuple(stride))


_SUMS = (aten.addmm.default, aten.baddbmm.default)
_OPS = (
    aten.linear.default, aten.matmul.default, aten.mm.default, aten.bmm.default,
    aten.mv.default, aten.dot.default, *_SUMS,
)  # fmt: skip

ROWS: tuple[Row, ...] = tuple(
    Row(op, "gemm", accept=accept, lower=lower, epilogue=True, flops=flops) for op in _OPS
)
