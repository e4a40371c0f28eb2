"""One spelling for elementwise operators: scalars, aliases of names, powers, clamps, selects."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from torch_aio.graph.compare import is_same
from torch_aio.graph.rewrite import Rule, Value, aten, bind, dim, emit, spec, tensor

_RENAMED = {
    "subtract": "sub",
    "multiply": "mul",
    "divide": "div",
    "true_divide": "div",
    "negative": "neg",
    "absolute": "abs",
    "greater": "gt",
    "greater_equal": "ge",
    "less": "lt",
    "less_equal": "le",
    "not_equal": "ne",
    "special_erf": "erf",
    "special_erfc": "erfc",
    "special_expit": "sigmoid",
    "special_exp2": "exp2",
    "special_expm1": "expm1",
    "special_log1p": "log1p",
    "special_round": "round",
    "arccos": "acos",
    "arcsin": "asin",
    "arctan": "atan",
    "arccosh": "acosh",
    "arcsinh": "asinh",
    "arctanh": "atanh",
    "arctan2": "atan2",
    "fix": "trunc",
    "clip": "clamp",
    "__and__": "bitwise_and",
    "__or__": "bitwise_or",
    "__xor__": "bitwise_xor",
    "concat": "cat",
    "concatenate": "cat",
}


def _rename(target: Any) -> Rule:
    def rename(node: Node) -> Value:
        """An alias of an operator's name -> the operator."""
        return emit(node.graph, node, target, node.args, node.kwargs)

    return rename


def _renames() -> dict[Any, Rule]:
    rules: dict[Any, Rule] = {}
    for old, new in _RENAMED.items():
        packet, wanted = getattr(aten, old, None), getattr(aten, new)
        for overload in packet.overloads() if packet is not None else ():
            if hasattr(wanted, overload) and "out" not in overload:
                rules[getattr(packet, overload)] = _rename(getattr(wanted, overload))
    return rules


def _scalar(target: Any) -> Rule:
    def scalar(node: Node) -> Value:
        """add.Scalar(x, 2, a) -> add.Tensor(x, 2 * a); also sub, mul, div."""
        new = emit(node.graph, node, target, node.args[:2])
        return new if is_same(spec(new), spec(node)) else None

    return scalar


def scaled_sum(node: Node) -> Value:
    """add(x, y, alpha=a) -> add(x, mul(y, a)); also sub."""
    bound = bind(node)
    x, y, alpha = bound["self"], bound["other"], bound["alpha"]
    target = aten.add.Tensor if node.target in _SUMS["add"] else aten.sub.Tensor
    if alpha == 1 and node.target is target:
        return None
    if alpha != 1:
        y = (
            emit(node.graph, node, aten.mul.Tensor, (y, alpha))
            if isinstance(y, Node)
            else y * alpha
        )
    new = emit(node.graph, node, target, (x, y))
    return new if is_same(spec(new), spec(node)) else None


def reversed_sub(node: Node) -> Value:
    """rsub(x, y, a) -> sub(y, mul(x, a))."""
    bound = bind(node)
    x, y, alpha = bound["self"], bound["other"], bound["alpha"]
    if alpha != 1:
        x = emit(node.graph, node, aten.mul.Tensor, (x, alpha))
    new = emit(node.graph, node, aten.sub.Tensor, (y, x))
    return new if is_same(spec(new), spec(node)) else None


def difference(node: Node) -> Value:
    """diff(x, 1, d, p, a) -> sub(y[1:], y[:-1]) along d, y = cat(p, x, a)."""
    bound = bind(node)
    parts = [bound[key] for key in ("prepend", "self", "append") if bound[key] is not None]
    if bound["n"] != 1 or spec(node).dtype == torch.bool:
        return None
    graph, axis = node.graph, dim(bound["dim"], spec(node).ndim)
    whole = parts[0] if len(parts) == 1 else emit(graph, node, aten.cat.default, (parts, axis))
    later = emit(graph, node, aten.slice.Tensor, (whole, axis, 1, sys.maxsize))
    earlier = emit(graph, node, aten.slice.Tensor, (whole, axis, 0, -1))
    return emit(graph, node, aten.sub.Tensor, (later, earlier))


def floor_divide(node: Node) -> Value:
    """floor_divide(x, y) -> div(x, y, rounding_mode="floor")."""
    return emit(node.graph, node, aten.div.Tensor_mode, node.args, {"rounding_mode": "floor"})


def power(node: Node) -> Value:
    """pow(x, 2) -> mul(x, x); 3 -> mul(mul(x, x), x); 0.5 -> sqrt; -0.5 -> rsqrt (as ATen does)."""
    x, exponent = node.args
    made: Value = None
    if exponent in (2, 3):
        made = emit(node.graph, node, aten.mul.Tensor, (x, x))
    if exponent == 3:
        made = emit(node.graph, node, aten.mul.Tensor, (made, x))
    if exponent in (0.5, -0.5):
        target = aten.sqrt.default if exponent > 0 else aten.rsqrt.default  # type: ignore[operator]
        made = emit(node.graph, node, target, (x,))
    return made if made is not None and is_same(spec(made), spec(node)) else None


def square(node: Node) -> Value:
    """square(x) -> mul(x, x)."""
    return emit(node.graph, node, aten.mul.Tensor, (node.args[0], node.args[0]))


def clamp_min(node: Node) -> Value:
    """clamp_min(x, a) -> clamp(x, a, None)."""
    return emit(node.graph, node, aten.clamp.default, (node.args[0], node.args[1], None))


def clamp_max(node: Node) -> Value:
    """clamp_max(x, a) -> clamp(x, None, a)."""
    return emit(node.graph, node, aten.clamp.default, (node.args[0], None, node.args[1]))


def relu6(node: Node) -> Value:
    """relu6(x) -> hardtanh(x, 0, 6)."""
    return emit(node.graph, node, aten.hardtanh.default, (node.args[0], 0.0, 6.0))


def select_scalar(node: Node) -> Value:
    """where(c, x, 2.0) -> where(c, x, full([], 2.0)): both sides tensors."""
    condition, x, y = node.args
    out = tensor(node)
    if out is None:
        return None
    sides = [_constant(node, side, out.dtype) for side in (x, y)]
    new = emit(node.graph, node, aten.where.self, (condition, *sides))
    return new if is_same(spec(new), out) else None


def masked_fill(node: Node) -> Value:
    """masked_fill(x, m, v) -> where(m, v, x)."""
    x, mask, value = (*node.args,)
    assert isinstance(x, Node)
    out = tensor(node)
    if out is None or spec(x).dtype != out.dtype:
        return None
    filler = _constant(node, value, out.dtype)
    if spec(filler).dtype != out.dtype:
        filler = emit(node.graph, node, aten._to_copy.default, (filler,), {"dtype": out.dtype})
    new = emit(node.graph, node, aten.where.self, (mask, filler, x))
    return new if is_same(spec(new), out) else None


def _constant(node: Node, value: Value, dtype: Any) -> Node:
    if isinstance(value, Node):
        return value
    return emit(node.graph, node, aten.full.default, ([], value), {"dtype": dtype})


def gelu(node: Node) -> Value:
    """gelu(x, "none") positional or not -> gelu(x, approximate=..)."""
    kind = bind(node)["approximate"]
    if len(node.args) == 1 and (kind == "tanh") == ("approximate" in node.kwargs):
        return None
    kwargs = {"approximate": "tanh"} if kind == "tanh" else {}
    return emit(node.graph, node, aten.gelu.default, (node.args[0],), kwargs)


def log_sigmoid_item(node: Node) -> Value:
    """getitem(log_sigmoid_forward(x), 0) -> log_sigmoid(x)."""
    call, index = node.args
    assert isinstance(call, Node)
    return emit(node.graph, node, aten.log_sigmoid.default, call.args) if index == 0 else None


_SUMS = {
    "add": (aten.add.Tensor, aten.add.Scalar),
    "sub": (aten.sub.Tensor, aten.sub.Scalar),
}
_POINTWISE: dict[Any, Callable[[Node], Value]] = {
    **dict.fromkeys((*_SUMS["add"], *_SUMS["sub"]), scaled_sum),
    aten.mul.Scalar: _scalar(aten.mul.Tensor),
    aten.div.Scalar: _scalar(aten.div.Tensor),
    aten.rsub.Scalar: reversed_sub,
    aten.rsub.Tensor: reversed_sub,
    aten.diff.default: difference,
    aten.floor_divide.default: floor_divide,
    aten.pow.Tensor_Scalar: power,
    aten.square.default: square,
    aten.clamp_min.default: clamp_min,
    aten.clamp_max.default: clamp_max,
    aten.relu6.default: relu6,
    aten.where.ScalarSelf: select_scalar,
    aten.where.ScalarOther: select_scalar,
    aten.where.Scalar: select_scalar,
    aten.masked_fill.Scalar: masked_fill,
    aten.masked_fill.Tensor: masked_fill,
    aten.gelu.default: gelu,
}
ITEMS: dict[Any, Rule] = {aten.log_sigmoid_forward.default: log_sigmoid_item}
RULES: dict[Any, Rule] = {**_renames(), **_POINTWISE}
