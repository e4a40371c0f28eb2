"""Pass ``hoist_constants``: what depends on no input is computed once, not at every call."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from torch_aio.graph import alias
from torch_aio.graph.compare import is_symbolic
from torch_aio.graph.rewrite import spec


def hoist_constants(gm: GraphModule) -> int:
    """mul(w, scale), arange(12) .. -> the same with meta["constant"] = True.

    The engine evaluates such nodes before the first call and again when a weight changes.
    Random operators, writes and sizes that depend on symbols are no constants.
    """
    count = 0
    for node in gm.graph.nodes:
        constant = _depends_on_nothing(node)
        count += constant and not node.meta.get("constant", False)
        node.meta["constant"] = constant
    return count


def is_constant(value: Any) -> bool:
    """Whether ``value`` depends on no input (looks through the graph, marks or not)."""
    if not isinstance(value, Node):
        return True
    pending, seen = [value], {value}
    while pending:
        node = pending.pop()
        if not (node.op == "get_attr" or _is_pure(node)):
            return False
        fresh = [n for n in node.all_input_nodes if n not in seen]
        seen.update(fresh)
        pending.extend(fresh)
    return True


def _depends_on_nothing(node: Node) -> bool:
    if node.op == "get_attr":
        return True
    return _is_pure(node) and all(n.meta.get("constant") for n in node.all_input_nodes)


def _is_pure(node: Node) -> bool:
    """Whether ``node`` is a call with the same result each time."""
    if node.op != "call_function" or alias.is_write(node):
        return False
    return not is_random(node) and not is_symbolic(spec(node))


def is_random(node: Node) -> bool:
    """Whether ``node`` draws random numbers."""
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
