"""Pass ``fuse_attention``: attention spelled out in matrix products becomes one operator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from torch_aio.graph import match
from torch_aio.graph.compare import same_sizes
from torch_aio.graph.rewrite import (
    Value,
    aten,
    calls,
    emit,
    only_user,
    operands,
    refuse,
    replace,
    spec,
    sweep_dead,
    tensor,
)
from torch_aio.ops.attention import attention

_NAME = "fuse_attention"


@dataclass
class Scores:
    """``(q @ key * scale) + mask``, or ``where(mask, q @ key * scale, fill)``, taken apart."""

    query: Node
    key: Node
    scale: float = 1.0
    factor: Node | None = None  # a 0-d tensor the scores are multiplied with ..
    divides: bool = False  # .. or divided by
    mask: Node | None = None
    inverted: bool = False
    fill: float | None = None


def fuse_attention(gm: GraphModule) -> int:
    """matmul(softmax(matmul(q, k.mT) * s + mask, -1), v) -> aio.attention(q, k, v, mask, scale=s).

    Also with where or masked_fill for the mask. The operator's softmax is the plain one (a row of
    -inf is NaN), so the answer is eager's for every mask and every input.
    """
    count = 0
    for node in list(gm.graph.nodes):
        if not calls(node, aten.softmax.int):
            continue
        product = only_user(node)
        if (
            product is None
            or not calls(product, aten.matmul.default)
            or operands(product)[0] is not node
        ):
            if any(calls(user, aten.matmul.default) for user in node.users):
                refuse(node, _NAME, "the attention weights are read by others too")
            continue
        found = _scores(node)
        reason = found if isinstance(found, str) else _why_not(node, product, found)
        if reason is not None or isinstance(found, str):
            refuse(node, _NAME, str(reason))
            continue
        count += replace(product, _emit(product, found))
    sweep_dead(gm.graph)
    return count


def _scores(softmax: Node) -> Scores | str:
    """What goes into the softmax, or why it is not attention."""
    masked, mask, fill, inverted = _unmask(operands(softmax)[0])
    scaled, scale, factor, divides = _unscale(masked)
    if not calls(scaled, aten.matmul.default):
        return "the softmax is not over a product of queries and keys"
    inner = [n for n in _between(operands(softmax)[0], scaled) if len(n.users) > 1]
    if inner:
        return "the attention scores are read by others too"
    query, key = operands(scaled)
    return Scores(query, key, scale, factor, divides, mask, inverted, fill)


def _unmask(value: Value) -> tuple[Value, Node | None, float | None, bool]:
    """``(scores, mask, fill, inverted)``."""
    if calls(value, aten.where.self):
        condition, x, y = operands(value)
        for scores, fill, inverted in ((x, y, False), (y, x, True)):
            if match.number(fill) is not None:
                return scores, condition, match.number(fill), inverted
    if calls(value, aten.add.Tensor) and all(isinstance(a, Node) for a in operands(value)):
        a, b = operands(value)
        scores, mask = (a, b) if _leads_to_product(a) else (b, a)
        if match.number(mask) is None:
            return scores, mask, None, False
    return value, None, None, False


def _leads_to_product(value: Value) -> bool:
    return calls(_unscale(value)[0], aten.matmul.default)


def _unscale(value: Value) -> tuple[Value, float, Node | None, bool]:
    """``(product, number, 0-d tensor, whether that divides)``."""
    if not calls(value, aten.mul.Tensor, aten.div.Tensor):
        return value, 1.0, None, False
    divides = calls(value, aten.div.Tensor)
    pairs = (operands(value),) if divides else (operands(value), operands(value)[::-1])
    for scores, scale in pairs:
        plain = match.number(scale)
        if plain is not None and (plain or not divides):
            return scores, 1.0 / plain if divides else plain, None, False
        found = tensor(scale)
        if found is not None and found.ndim == 0:
            return scores, 1.0, scale, divides
    return value, 1.0, None, False


def _between(value: Value, end: Node) -> list[Node]:
    """The chain of nodes from ``value`` back to the product ``end``, both included."""
    chain: list[Node] = []
    while isinstance(value, Node):
        chain.append(value)
        if value is end:
            break
        scores = _unmask(value)[0]
        value = scores if scores is not value else _unscale(value)[0]
    return chain


def _why_not(softmax: Node, product: Node, found: Scores) -> str | None:
    """Why this is no attention that the operator computes, as a sentence; None: it is."""
    scores = spec(softmax)
    inputs = [spec(n) for n in (found.query, found.key, operands(product)[1])]
    if operands(softmax)[1] != scores.ndim - 1:
        return "the softmax is not over the last dimension"
    if scores.ndim not in (3, 4) or any(x.ndim != scores.ndim for x in inputs):
        return "the operands are not of rank 3 or 4"
    if not all(same_sizes(x.shape[:-2], scores.shape[:-2]) for x in inputs):
        return "the operands' batch sizes differ"
    if any(x.dtype != scores.dtype for x in inputs):
        return "the softmax is computed in another dtype than the products"
    if not same_sizes(scores.shape[-2:], (inputs[0].shape[-2], inputs[1].shape[-1])):
        return "the mask makes the scores larger"
    return _why_not_mask(found, scores.dtype)


def _why_not_mask(found: Scores, dtype: torch.dtype) -> str | None:
    if found.mask is None:
        return None
    mask = spec(found.mask)
    if found.fill is None and mask.dtype != dtype:
        return f"the added mask is of {mask.dtype}"
    if found.fill is not None and mask.dtype != torch.bool:
        return "the condition is not boolean"
    return None


def _emit(product: Node, found: Scores) -> Node:
    graph, query, mask = product.graph, found.query, found.mask
    scale = found.scale
    absorbed = match.factors(query) if calls(query, aten.mul.Tensor, aten.div.Tensor) else None
    if absorbed is not None and len(query.users) == 1 and len(absorbed.nodes) == 1:
        query, scale = absorbed.nodes[0], scale * absorbed.scale
    if found.factor is not None:
        target = aten.div.Tensor if found.divides else aten.mul.Tensor
        query = emit(graph, product, target, (query, found.factor))
    if match.is_swap_of_last(found.key):
        key = operands(found.key)[0]
    else:
        last = spec(found.key).ndim - 1
        key = emit(graph, product, aten.transpose.int, (found.key, last - 1, last))
    if found.inverted:
        mask = emit(graph, product, aten.logical_not.default, (mask,))
    kwargs: dict[str, Value] = {"scale": scale}
    if found.fill is not None:
        kwargs["fill"] = found.fill
    args = (query, key, operands(product)[1], mask)
    return emit(graph, product, attention, args, kwargs)
