"""How elementwise operators become steps of a chain."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from torch_aio.ir.shapes.promotion import result_type
from torch_aio.ir.spec import TensorSpec
from torch_aio.kernels.chain import Const
from torch_aio.plan.families.dtypes import ON_BOOLS
from torch_aio.plan.families.fused import Emit
from torch_aio.plan.trace import ChainTrace, Ref

aten = torch.ops.aten


def _spec(node: Node) -> TensorSpec:
    spec: TensorSpec = node.meta["spec"]
    return spec


def argument(node: Node, position: int, name: str, default: Any = None) -> Any:
    """The argument of a call, given by position or by name."""
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
        dtype, alpha = _spec(node).dtype, argument(node, 2, "alpha", 1)
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
    mode = argument(node, 2, "rounding_mode")
    op = {None: "div", "floor": "floor_divide", "trunc": "trunc_divide"}[mode]
    return trace.step(op, tuple(node.args[:2]), _spec(node).dtype)


def clamp(trace: ChainTrace, node: Node) -> Ref:
    """``clamp`` and ``hardtanh`` with one bound or two."""
    is_hardtanh = node.target is aten.hardtanh.default
    low = argument(node, 1, "min_val" if is_hardtanh else "min", -1.0 if is_hardtanh else None)
    high = argument(node, 2, "max_val" if is_hardtanh else "max", 1.0 if is_hardtanh else None)
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
    slope = argument(node, 1, "negative_slope", 0.01)
    return trace.step("leaky_relu", (node.args[0], slope), _spec(node).dtype)


def elu(trace: ChainTrace, node: Node) -> Ref:
    """``elu(x, alpha, scale, input_scale)``."""
    rest = [argument(node, i + 1, n, 1) for i, n in enumerate(("alpha", "scale", "input_scale"))]
    return trace.step("elu", (node.args[0], *rest), _spec(node).dtype)


def softplus(trace: ChainTrace, node: Node) -> Ref:
    """``softplus(x, beta, threshold)``."""
    beta, threshold = argument(node, 1, "beta", 1), argument(node, 2, "threshold", 20)
    return trace.step("softplus", (node.args[0], beta, threshold), _spec(node).dtype)


def bitwise(op: str) -> Emit:
    """A bitwise operator: logic on bools, bits on integers."""

    def emit(trace: ChainTrace, node: Node) -> Ref:
        dtype = _spec(node).dtype
        name = op if dtype == torch.bool else f"bit_{op}"
        return trace.step(name, tuple(node.args[:2]), dtype)

    return emit


def logical(op: str) -> Emit:
    """A logical operator: operands are tested against zero."""
    return lambda trace, node: trace.step(op, tuple(node.args[:2]), torch.bool)


def test(op: str) -> Emit:
    """A question about each element, computed in the operand's dtype."""
    return lambda trace, node: trace.step(op, (node.args[0],), _operand(node.args[0]).dtype)
