"""Rows of elementwise operators that few models use, most of them several steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from torch_aio.ir.spec import TensorSpec
from torch_aio.plan.families.chain_steps import binary
from torch_aio.plan.families.dtypes import FLOATS, numbers, supported
from torch_aio.plan.families.fused import row
from torch_aio.plan.row import Row
from torch_aio.plan.trace import ChainTrace, Ref

aten = torch.ops.aten


def _dtype(node: Node) -> torch.dtype:
    spec: TensorSpec = node.meta["spec"]
    return spec.dtype


def log_sigmoid(trace: ChainTrace, node: Node) -> Ref:
    """``min(x, 0) - log(1 + exp(-|x|))``: nothing overflows or cancels."""
    x, dtype = node.args[0], _dtype(node)
    away = trace.step("neg", (trace.step("abs", (x,), dtype),), dtype)
    rest = trace.step("log1p", (trace.step("exp", (away,), dtype),), dtype)
    return trace.step("sub", (trace.step("min", (x, 0), dtype), rest), dtype)


def addcmul(trace: ChainTrace, node: Node) -> Ref:
    """``x + value * a * b``; with the division ``addcdiv``."""
    x, a, b = node.args[:3]
    dtype, value = _dtype(node), node.kwargs.get("value", 1)
    op = "mul" if node.target is aten.addcmul.default else "div"
    if value != 1:
        a = trace.step("mul", (a, value), dtype)  # type: ignore[assignment]
    return trace.step("add", (x, trace.step(op, (a, b), dtype)), dtype)


def lerp(trace: ChainTrace, node: Node) -> Ref:
    """``a + w (b - a)`` below a weight of one half, else ``b - (1 - w) (b - a)``, as eager."""
    a, b, weight = node.args[:3]
    assert isinstance(weight, (int, float))
    dtype = _dtype(node)
    way = trace.step("sub", (b, a), dtype)
    if abs(weight) < 0.5:
        return trace.step("add", (a, trace.step("mul", (way, weight), dtype)), dtype)
    return trace.step("sub", (b, trace.step("mul", (way, 1 - weight), dtype)), dtype)


def threshold(trace: ChainTrace, node: Node) -> Ref:
    """``value`` where x <= threshold, else x."""
    x, limit, value = node.args[:3]
    dtype = _dtype(node)
    below = trace.step("le", (x, limit), dtype)
    return trace.step("where", (below, value, x), dtype)


def finite(trace: ChainTrace, node: Node) -> Ref:
    """``isfinite(x)``."""
    x = node.args[0]
    assert isinstance(x, Node)
    return trace.step("isfinite", (x,), _dtype(x))


def accept_remainder(op: str) -> Callable[[Node], str | None]:
    """Floats; integers only by a constant, as division by zero would end the process."""

    def accept(node: Node) -> str | None:
        divisor = node.args[1]
        if _dtype(node) not in FLOATS:
            if isinstance(divisor, Node) or divisor == 0:
                return "integer division by a tensor may meet a zero"
            return numbers(node)
        return numbers(node) or supported(op)(node)

    return accept


def accept_finite(node: Node) -> str | None:
    """Of floats."""
    x: Any = node.args[0]
    return None if _dtype(x) in FLOATS else "every integer is finite: not worth a kernel"


def accept_lerp(node: Node) -> str | None:
    """With a number for a weight."""
    if isinstance(node.args[2], Node):
        return "lerp with a tensor of weights has no kernel"
    return supported("add")(node)


def accept_pow(node: Node) -> str | None:
    """f32 and half results of float operands."""
    return numbers(node) or supported("pow")(node)


ROWS: tuple[Row, ...] = (
    *(
        row(op, binary(name), accept_remainder(name))
        for name in ("fmod", "remainder")
        for op in (getattr(aten, name).Tensor, getattr(aten, name).Scalar)
    ),
    row(aten.pow.Tensor_Tensor, binary("pow"), accept_pow),
    row(aten.pow.Scalar, binary("pow"), accept_pow),
    row(aten.log_sigmoid.default, log_sigmoid, supported("log1p")),
    row(aten.addcmul.default, addcmul, numbers),
    row(aten.addcdiv.default, addcmul, supported("div")),
    row(aten.lerp.Scalar, lerp, accept_lerp),
    row(aten.threshold.default, threshold, numbers),
    row(aten.isfinite.default, finite, accept_finite),
)
