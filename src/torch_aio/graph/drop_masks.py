"""Pass ``drop_masks``: attention masks that mask nothing go."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from torch_aio.graph.hoist_constants import is_constant
from torch_aio.graph.rewrite import aten, callee, calls, emit, operands, replace, sweep_dead
from torch_aio.ops.attention import attention

_LARGEST = 1 << 24  # elements: a longer mask costs more to look at than to read


def drop_masks(gm: GraphModule) -> int:
    """sdpa(q, k, v, ones(l, l)) -> sdpa(q, k, v); aio.attention(q, k, v, zeros) likewise.

    Looks only at masks computed from numbers (arange, comparisons), which no weight can change.
    """
    count = 0
    for node in list(gm.graph.nodes):
        if not calls(node, aten.scaled_dot_product_attention.default, attention):
            continue
        mask = operands(node)[3] if len(operands(node)) > 3 else None
        if not isinstance(mask, Node) or not _is_literal(mask):
            continue
        with torch.no_grad():
            if _masks_nothing(node, _value(mask, {})):
                args = (*operands(node)[:3], None, *operands(node)[4:])
                kwargs = {k: v for k, v in node.kwargs.items() if k != "fill"}
                count += replace(node, emit(node.graph, node, node.target, args, kwargs))
    sweep_dead(gm.graph)
    return count


def _is_literal(mask: Node) -> bool:
    """Whether the mask is small and computed from numbers alone."""
    pending, seen = [mask], {mask}
    while pending:
        node = pending.pop()
        if node.op != "call_function":
            return False
        fresh = [n for n in node.all_input_nodes if n not in seen]
        seen.update(fresh)
        pending.extend(fresh)
    return is_constant(mask) and bool(mask.meta["spec"].numel <= _LARGEST)


def _value(node: Node, known: dict[Node, Any]) -> Any:
    if node not in known:
        args = map_arg(operands(node), lambda n: _value(n, known))
        kwargs: Any = map_arg(node.kwargs, lambda n: _value(n, known))
        known[node] = callee(node)(*args, **kwargs)
    return known[node]


def _masks_nothing(node: Node, mask: torch.Tensor) -> bool:
    if mask.dtype == torch.bool:
        return bool(mask.all())
    return node.kwargs.get("fill") is None and not mask.any()
