"""Rows of elementwise operators: each appends steps to the chain of its group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from torch_aio.ir.shapes.promotion import result_type
from torch_aio.ir.spec import TensorSpec
from torch_aio.kernels.chain import Chain, Const, Input, Step
from torch_aio.plan.channels import LaneMask, channel_lanes
from torch_aio.plan.families.copies import apply
from torch_aio.plan.families.dtypes import (
    ON_BOOLS,
    anything,
    arithmetic,
    division,
    floats,
    numbers,
    supported,
)
from torch_aio.plan.lowering import Group, Lowering
from torch_aio.plan.row import Row
from torch_aio.plan.trace import ChainTrace, Ref

aten = torch.ops.aten
# ---- lowering of a group without an anchor ------------------------------------------------


def lower(ctx: Lowering, group: Group) -> None:
    """One elementwise step for all nodes of the group."""
    trace = ChainTrace()
    for node in group.nodes:
        trace.values[node] = ctx.row_of(node).chain(trace, node)
    output = group.output
    spec: TensorSpec = output.meta["spec"]
    target = ctx.output(output)
    chain, operands = ctx.close(trace, output, channel=-1)
    if not chain.steps and chain.inputs[0].dtype != chain.result:
        raise TypeError("a chain without steps cannot change the dtype")
    if target.block and spec.shape[1] % target.block != 0 and not keeps_zero(chain):
        chain, operands = _masked(ctx, chain, operands, spec, target.block)
    apply(ctx, chain, operands, target)


ZERO_KEEPING = frozenset(
    "mul relu neg abs sign sqrt tanh erf silu gelu gelu_tanh hardswish leaky_relu sin mish elu "
    "floor ceil trunc round cast expm1 log1p".split()
)
"""Operations with f(0, ...) = 0 whatever the other operand: padding lanes stay zero."""


def keeps_zero(chain: Chain) -> bool:
    """Whether zero inputs (padding lanes) surely give a zero result."""
    if any(i.access == "scalar" for i in chain.inputs):
        return False
    plain = frozenset({"add", "sub", "max", "min"})
    return all(
        step.op in ZERO_KEEPING or (step.op in plain and all(isinstance(a, int) for a in step.args))
        for step in chain.steps
    )


def _masked(
    ctx: Lowering, chain: Chain, operands: list[Any], spec: TensorSpec, block: int
) -> tuple[Chain, list[Any]]:
    """The chain with padding lanes set to zero."""
    lanes = ctx.constant((), LaneMask(int(spec.shape[1]), block))  # type: ignore[arg-type]
    mask = channel_lanes(lanes, spec, block)
    first = len(chain.inputs)
    steps = tuple(
        Step(s.op, tuple(a + (a >= first) if isinstance(a, int) else a for a in s.args), s.dtype)
        for s in chain.steps
    )
    last = first + len(steps) if steps else 0
    steps += (Step("where", (first, last, Const(0)), chain.result),)
    return Chain((*chain.inputs, Input("bool", "channel")), steps), [*operands, mask]


# ---- how operators become steps -----------------------------------------------------------

Emit = Callable[[ChainTrace, Node], Ref]


def _spec(node: Node) -> TensorSpec:
    spec: TensorSpec = node.meta["spec"]
    return spec


def _argument(node: Node, position: int, name: str, default: Any = None) -> Any:
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name, default)


def unary(op: str, *consts: float) -> Emit:
    """``op(x, *consts)`` in the result's dtype."""

    def emit(trace: ChainTrace, node: Node) -> Ref:
        return trace.step(op, (node.args[0], *map(Const, consts)), _spec(node).dtype)

    return emit


def binary(op: str) -> Emit:
    """``op(a, b)`` in the result's dtype; ``alpha`` scales b."""

    def emit(trace: ChainTrace, node: Node) -> Ref:
        a, b = node.args[:2]
        dtype, alpha = _spec(node).dtype, _argument(node, 2, "alpha", 1)
        if alpha != 1:
            b = trace.step("mul", (b, alpha), dtype)  # type: ignore[assignment]
        name = ON_BOOLS.get(op, op) if dtype == torch.bool else op
        return trace.step(name, (a, b), dtype)

    return emit


def compare(op: str) -> Emit:
    """A comparison in the dtype both operands promote to."""

    def emit(trace: ChainTrace, node: Node) -> Ref:
        operands = [_operand(a) for a in node.args[:2]]
        return trace.step(op, tuple(node.args[:2]), result_type(*operands))

    return emit


def _operand(argument: Any) -> Any:
    return argument.meta["spec"] if isinstance(argument, Node) else argument


def cast(trace: ChainTrace, node: Node) -> Ref:
    """``_to_copy``, ``clone``: the operand in the result's dtype."""
    source = node.args[0]
    assert isinstance(source, Node)
    dtype = _spec(node).dtype
    if _spec(source).dtype == dtype:
        return trace.value(source)
    return trace.step("cast", (source,), dtype)


def divide(trace: ChainTrace, node: Node) -> Ref:
    """``div`` with its rounding modes."""
    mode = _argument(node, 2, "rounding_mode")
    op = {None: "div", "floor": "floor_divide", "trunc": "trunc_divide"}[mode]
    return trace.step(op, tuple(node.args[:2]), _spec(node).dtype)


def clamp(trace: ChainTrace, node: Node) -> Ref:
    """``clamp`` and ``hardtanh`` with one bound or two."""
    is_hardtanh = node.target is aten.hardtanh.default
    low = _argument(node, 1, "min_val" if is_hardtanh else "min", -1.0 if is_hardtanh else None)
    high = _argument(node, 2, "max_val" if is_hardtanh else "max", 1.0 if is_hardtanh else None)
    value: Any = node.args[0]
    dtype = _spec(node).dtype
    if low is not None and high is not None:
        return trace.step("clamp", (value, low, high), dtype)
    if low is not None:
        return trace.step("max", (value, low), dtype)
    return trace.step("min", (value, high), dtype)


def gelu(trace: ChainTrace, node: Node) -> Ref:
    """``gelu`` in its two forms."""
    op = "gelu_tanh" if node.kwargs.get("approximate", "none") == "tanh" else "gelu"
    return trace.step(op, (node.args[0],), _spec(node).dtype)


def where(trace: ChainTrace, node: Node) -> Ref:
    """``where(mask, a, b)``."""
    return trace.step("where", tuple(node.args[:3]), _spec(node).dtype)


def masked_fill(trace: ChainTrace, node: Node) -> Ref:
    """``masked_fill(x, mask, value)``."""
    x, mask, value = node.args[:3]
    return trace.step("where", (mask, value, x), _spec(node).dtype)


def power(trace: ChainTrace, node: Node) -> Ref:
    """``pow(x, number)``; squares and cubes by multiplication."""
    x, exponent = node.args[:2]
    dtype = _spec(node).dtype
    if exponent == 2:
        return trace.step("mul", (x, x), dtype)
    if exponent == 3:
        return trace.step("mul", (trace.step("mul", (x, x), dtype), x), dtype)
    named = {0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}.get(exponent)  # type: ignore[arg-type]
    return trace.step(named, (x,), dtype) if named else trace.step("pow", (x, exponent), dtype)


def leaky_relu(trace: ChainTrace, node: Node) -> Ref:
    """``leaky_relu(x, slope)``."""
    slope = _argument(node, 1, "negative_slope", 0.01)
    return trace.step("leaky_relu", (node.args[0], slope), _spec(node).dtype)


def elu(trace: ChainTrace, node: Node) -> Ref:
    """``elu(x, alpha, scale, input_scale)``."""
    rest = [_argument(node, i + 1, n, 1) for i, n in enumerate(("alpha", "scale", "input_scale"))]
    return trace.step("elu", (node.args[0], *rest), _spec(node).dtype)


def softplus(trace: ChainTrace, node: Node) -> Ref:
    """``softplus(x, beta, threshold)``."""
    beta, threshold = _argument(node, 1, "beta", 1), _argument(node, 2, "threshold", 20)
    return trace.step("softplus", (node.args[0], beta, threshold), _spec(node).dtype)


def bitwise(op: str) -> Emit:
    """A bitwise operator: logic on bools, bits on integers."""

    def emit(trace: ChainTrace, node: Node) -> Ref:
        dtype = _spec(node).dtype
        name = op if dtype == torch.bool else f"bit_{op}"
        return trace.step(name, tuple(node.args[:2]), dtype)

    return emit


# ---- the table ----------------------------------------------------------------------------

UNARY = {
    aten.relu.default: "relu", aten.sigmoid.default: "sigmoid", aten.tanh.default: "tanh",
    aten.silu.default: "silu", aten.exp.default: "exp", aten.exp2.default: "exp2",
    aten.expm1.default: "expm1", aten.log.default: "log", aten.log2.default: "log2",
    aten.log10.default: "log10", aten.log1p.default: "log1p", aten.sqrt.default: "sqrt",
    aten.rsqrt.default: "rsqrt", aten.reciprocal.default: "reciprocal", aten.erf.default: "erf",
    aten.sin.default: "sin", aten.cos.default: "cos", aten.hardswish.default: "hardswish",
    aten.hardsigmoid.default: "hardsigmoid", aten.mish.default: "mish",
    aten.floor.default: "floor", aten.ceil.default: "ceil", aten.trunc.default: "trunc",
    aten.round.default: "round",
}  # fmt: skip
UNARY_NUMBERS = {aten.neg.default: "neg", aten.abs.default: "abs", aten.sign.default: "sign"}
BINARY = {
    aten.add.Tensor: "add", aten.sub.Tensor: "sub", aten.mul.Tensor: "mul",
    aten.add.Scalar: "add", aten.sub.Scalar: "sub", aten.mul.Scalar: "mul",
    aten.maximum.default: "max", aten.minimum.default: "min",
}  # fmt: skip
COMPARE = {
    f"{name}": (getattr(aten, name).Tensor, getattr(aten, name).Scalar)
    for name in ("eq", "ne", "lt", "le", "gt", "ge")
}
BITWISE = {
    aten.bitwise_and.Tensor: "and", aten.bitwise_or.Tensor: "or", aten.bitwise_xor.Tensor: "xor",
    aten.bitwise_and.Scalar: "and", aten.bitwise_or.Scalar: "or", aten.bitwise_xor.Scalar: "xor",
    aten.bitwise_not.default: "not",
}  # fmt: skip
LOGICAL = {
    aten.logical_and.default: "and", aten.logical_or.default: "or",
    aten.logical_xor.default: "xor", aten.logical_not.default: "not",
}  # fmt: skip
TESTS = {aten.isnan.default: "isnan", aten.isinf.default: "isinf"}


def logical(op: str) -> Emit:
    """A logical operator: operands are tested against zero."""
    return lambda trace, node: trace.step(op, tuple(node.args[:2]), torch.bool)


def test(op: str) -> Emit:
    """A question about each element, computed in the operand's dtype."""
    return lambda trace, node: trace.step(op, (node.args[0],), _operand(node.args[0]).dtype)


def _row(op: Any, emit: Emit, accept: Callable[[Node], str | None] = anything) -> Row:
    return Row(op, "elementwise", accept=accept, lower=lower, chain=emit, layout="any")


ROWS: tuple[Row, ...] = (
    *(_row(op, unary(name), supported(name)) for op, name in UNARY.items()),
    *(_row(op, unary(name), numbers) for op, name in UNARY_NUMBERS.items()),
    *(_row(op, binary(name), arithmetic(name)) for op, name in BINARY.items()),
    *(_row(op, compare(name)) for name, ops in COMPARE.items() for op in ops),
    *(_row(op, bitwise(name)) for op, name in BITWISE.items()),
    *(_row(op, logical(name)) for op, name in LOGICAL.items()),
    *(_row(op, test(name)) for op, name in TESTS.items()),
    _row(aten.div.Tensor, divide, division),
    _row(aten.div.Scalar, divide, division),
    _row(aten.div.Tensor_mode, divide, division),
    _row(aten.clamp.default, clamp, numbers),
    _row(aten.hardtanh.default, clamp, floats),
    _row(aten.gelu.default, gelu, supported("gelu")),
    _row(aten.leaky_relu.default, leaky_relu, floats),
    _row(aten.elu.default, elu, supported("elu")),
    _row(aten.softplus.default, softplus, supported("softplus")),
    _row(aten.pow.Tensor_Scalar, power, supported("pow")),
    _row(aten.where.self, where),
    _row(aten.masked_fill.Scalar, masked_fill),
    _row(aten.masked_fill.Tensor, masked_fill),
    _row(aten._to_copy.default, cast),
    _row(aten.clone.default, cast),
)
