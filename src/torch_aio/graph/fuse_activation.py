"""Pass ``fuse_activation``: gelu, silu and hardswish spelled out become one operator."""

from __future__ import annotations

import math
from collections import Counter

from torch.fx import GraphModule, Node

from torch_aio.graph import match
from torch_aio.graph.match import Factors, is_near
from torch_aio.graph.rewrite import Value, aten, calls, emit, operands, replace, spec, sweep_dead

CUBIC = 0.044715  # gelu's tanh form, https://arxiv.org/abs/1606.08415


def fuse_activation(gm: GraphModule) -> int:
    """0.5 * x * (1 + erf(x / sqrt(2))) -> gelu(x); its tanh form -> gelu(x, approximate="tanh").

    x * sigmoid(x) -> silu(x); x * clamp(x + 3, 0, 6) / 6 and x * hardsigmoid(x) -> hardswish(x).
    """
    count = 0
    for node in reversed(list(gm.graph.nodes)):
        if node._erased or not calls(node, aten.mul.Tensor, aten.div.Tensor):
            continue
        product = match.factors(node)
        if len(product.nodes) == 2 and spec(node).dtype.is_floating_point:
            new = _activation(node, product)
            count += new is not None and replace(node, new)
    sweep_dead(gm.graph)
    return count


def _activation(node: Node, product: Factors) -> Node | None:
    for x, gate in (product.nodes, product.nodes[::-1]):
        if not isinstance(x, Node) or spec(x).dtype != spec(node).dtype:
            continue
        if is_near(product.scale, 0.5) and _is_erf_gate(gate, x):
            return emit(node.graph, node, aten.gelu.default, (x,))
        if is_near(product.scale, 0.5) and _is_tanh_gate(gate, x):
            return emit(node.graph, node, aten.gelu.default, (x,), {"approximate": "tanh"})
        if product.scale == 1.0 and calls(gate, aten.sigmoid.default) and operands(gate)[0] is x:
            return emit(node.graph, node, aten.silu.default, (x,))
        if _is_hard_gate(gate, x, product.scale):
            return emit(node.graph, node, aten.hardswish.default, (x,))
    return None


def _is_erf_gate(gate: Value, x: Node) -> bool:
    """Gate is 1 + erf(x / sqrt(2))."""
    inner = match.plus(gate)
    if inner is None or inner[1] != 1.0 or not calls(inner[0], aten.erf.default):
        return False
    argument = match.factors(operands(inner[0])[0])
    return argument.nodes == [x] and is_near(argument.scale, math.sqrt(0.5))


def _is_tanh_gate(gate: Value, x: Node) -> bool:
    """Gate is 1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))."""
    inner = match.plus(gate)
    if inner is None or inner[1] != 1.0 or not calls(inner[0], aten.tanh.default):
        return False
    argument = match.factors(operands(inner[0])[0])
    if not is_near(argument.scale, math.sqrt(2 / math.pi)):
        return False
    rest = argument.tensors - Counter([x])
    if argument.tensors[x] == 1 and len(list(rest.elements())) == 1:
        return _is_one_plus_square(next(iter(rest)), x)
    return len(argument.nodes) == 1 and _is_plus_cube(argument.nodes[0], x)


def _is_plus_cube(value: Node, x: Node) -> bool:
    if not calls(value, aten.add.Tensor) or x not in operands(value):
        return False
    cube = match.other(value, x)
    return isinstance(cube, Node) and _is_power(cube, x, 3)


def _is_one_plus_square(value: Node, x: Node) -> bool:
    inner = match.plus(value)
    return inner is not None and inner[1] == 1.0 and _is_power(inner[0], x, 2)


def _is_power(value: Node, x: Node, exponent: int) -> bool:
    """Value is 0.044715 * x^exponent."""
    found = match.factors(value)
    return found.nodes == [x] * exponent and is_near(found.scale, CUBIC)


def _is_hard_gate(gate: Value, x: Node, scale: float) -> bool:
    """Gate is hardsigmoid(x), or clamp(x + 3, 0, 6) with a sixth in the product."""
    if calls(gate, aten.hardsigmoid.default):
        return operands(gate)[0] is x and scale == 1.0
    if not is_near(scale, 1 / 6) or not calls(gate, aten.hardtanh.default, aten.clamp.default):
        return False
    bounds = tuple(map(match.number, operands(gate)[1:3]))
    return bounds == (0.0, 6.0) and match.plus(operands(gate)[0]) == (x, 3.0)
