"""Pass ``widen``: half-precision operators without a kernel of their own run in float32.

Operands widen, the result narrows. Between two such operators nothing is rounded: what lies between
them (elementwise operators, views, copies) widens with them, so a ``.half()`` model is one float32
network with narrow inputs, weights and results, and the graph's later passes find what they know.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import getitem
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from torch_aio.graph import alias
from torch_aio.graph.fuel import spend
from torch_aio.graph.hoist_constants import is_constant
from torch_aio.graph.rewrite import aten, emit, refuse, replace, sweep_dead, tensor
from torch_aio.ir.spec import TensorSpec
from torch_aio.plan.row import Row
from torch_aio.plan.rows import row_of

HALVES = (torch.float16, torch.bfloat16)
_CAST = aten._to_copy.default


def widen(gm: GraphModule) -> int:
    """linear(x, w) of float16 -> _to_copy(linear(x as float32, w as float32), dtype=float16).

    What reads such a result and moves or maps it elementwise follows: relu(linear(x, w)) narrows
    behind the relu. An infinity that only rounding makes (65504 * 2 as float16) appears in results
    that leave the float32 stretch, not inside it.
    """
    stretch = _Stretch()
    for node in list(gm.graph.nodes):
        if stretch.takes(node) and spend():
            stretch.add(node)
    for node in reversed(stretch.wide):
        if node.users and not _is_view(node):
            replace(node, _narrowed(node, stretch.wide[node]))
    sweep_dead(gm.graph)
    return len(stretch.wide)


def _narrowed(node: Node, twin: Node) -> Node:
    """The twin in the node's dtype (indices and truth values have theirs)."""
    if not _is_half(node):
        return twin
    return emit(node.graph, node, _CAST, (twin,), {"dtype": _dtype(node)}, like=twin)


class _Stretch:
    """The float32 twins of half-precision nodes."""

    def __init__(self) -> None:
        self.wide: dict[Node, Node] = {}
        self.casts: dict[Node, Node] = {}

    def takes(self, node: Node) -> bool:
        """Whether a node has no kernel in its dtype, or only passes on what has a twin."""
        row = row_of(node)
        halves = [n for n in node.all_input_nodes if _is_half(n)]
        if row is None or not halves or alias.is_write(node) or is_constant(node):
            return False
        twins = [n in self.wide for n in halves]
        if node.target is getitem:
            return twins[0]
        if node.target is not _CAST and _refuses(row, node):
            return True
        return _is_half(node) and any(twins) and (row.chain is not None or all(twins))

    def add(self, node: Node) -> None:
        """Give a node its twin, unless that has no kernel either."""
        args = pytree.tree_map(_widened, map_arg(node.args, self._operand(node)))
        kwargs = pytree.tree_map(_widened, map_arg(node.kwargs, self._operand(node)))
        try:
            twin = emit(node.graph, node, node.target, args, kwargs, like=node)
        except (NotImplementedError, ValueError, TypeError, RuntimeError) as error:
            refuse(node, "widen", str(error))
            return
        row = row_of(twin)
        assert row is not None
        if _refuses(row, twin) or _is_half(twin):
            refuse(node, "widen", f"float32 has no kernel either: {row.accept(twin)}")
            node.graph.erase_node(twin)
            return
        if row.chain is None and row.view is None:
            twin.meta["widened"] = True
        if "name" in node.meta:
            twin.meta["name"] = node.meta["name"]
        self.wide[node] = twin

    def _operand(self, node: Node) -> Callable[[Node], Node]:
        def operand(source: Node) -> Node:
            if not _is_half(source):
                return source
            return self.wide.get(source) or self._cast(source, node)

        return operand

    def _cast(self, source: Node, user: Node) -> Node:
        """``source`` in float32, made once, before its first reader."""
        if source not in self.casts:
            cast = emit(user.graph, user, _CAST, (source,), {"dtype": torch.float32}, like=source)
            cast.meta["name"] = source.meta.get("name", "")
            self.casts[source] = cast
        return self.casts[source]


def _refuses(row: Row, node: Node) -> bool:
    """Whether a row refuses a node; marks that its sentence needs are not yet there."""
    weights = [n for n in node.all_input_nodes if "constant" not in n.meta and is_constant(n)]
    for weight in weights:
        weight.meta["constant"] = True
    refused = row.accept(node) is not None
    for weight in weights:
        del weight.meta["constant"]
    return refused


def _is_view(node: Node) -> bool:
    """Whether a node is another view of its operand's memory, which may stay one."""
    row = row_of(node)
    return row is not None and row.view is not None and node.target is not getitem


def _is_half(node: Node) -> bool:
    """Whether a node holds half-precision tensors."""
    specs = node.meta.get("spec")
    parts = specs if isinstance(specs, tuple) else (specs,)
    return any(isinstance(part, TensorSpec) and part.dtype in HALVES for part in parts)


def _dtype(node: Node) -> torch.dtype:
    spec = tensor(node)
    assert spec is not None
    return spec.dtype


def _widened(argument: Any) -> Any:
    return torch.float32 if argument in HALVES and isinstance(argument, torch.dtype) else argument
