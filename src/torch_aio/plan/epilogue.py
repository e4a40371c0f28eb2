"""Which nodes become one step: elementwise nodes join the group that uses them.

A reverse sweep: an elementwise node whose users all lie in one group joins it if its result has the
shape of the group's output. An anchor (a kernel that takes an epilogue) joins the same way, one a
group, and then computes the group's first value in registers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch.fx import Node

from torch_aio.plan.lowering import Group
from torch_aio.plan.row import Row

MOST_NODES = 24
"""Nodes a group: longer chains spill registers; 24 holds every activation seen spelled out."""
MOST_OPERANDS = 8
"""Memory operands a group: pointers and strides of more do not fit the integer registers."""


def group(nodes: Sequence[Node], row_of: Callable[[Node], Row | None]) -> list[Group]:
    """Partition claimed nodes into groups, in the order of their last nodes."""
    member: dict[Node, Group] = {}
    groups: list[Group] = []
    inside = set(nodes)
    for node in reversed(nodes):
        row = row_of(node)
        if row is None or (row.lower is None and row.chain is None):
            continue
        home = _home(node, row, member, inside)
        if home is None:
            home = Group([], None)
            groups.append(home)
        home.nodes.insert(0, node)
        if row.chain is None:
            home.anchor = node
        member[node] = home
    groups.reverse()
    order = {node: i for i, node in enumerate(nodes)}
    return sorted(groups, key=lambda g: order[g.output])


def _home(node: Node, row: Row, member: dict[Node, Group], inside: set[Node]) -> Group | None:
    users = list(node.users)
    if not users or any(user not in inside for user in users) or node.meta.get("escapes"):
        return None
    home = member.get(users[0])
    if home is None or any(member.get(user) is not home for user in users):
        return None
    if row.chain is None and (not row.epilogue or home.anchor is not None):
        return None
    if home.anchor is not None and (home.anchor is home.output or node in _ancestors(home)):
        return None
    if node.meta["spec"].shape != home.output.meta["spec"].shape:
        return None
    if node.meta.get("layout") != home.output.meta.get("layout"):
        return None
    if len(home.nodes) >= MOST_NODES or len(operands([node, *home.nodes])) > MOST_OPERANDS:
        return None
    return home


def _ancestors(home: Group) -> set[Node]:
    """The operands of the group's anchor: they must be in memory before it runs."""
    assert home.anchor is not None
    return set(home.anchor.all_input_nodes)


def operands(nodes: Sequence[Node]) -> set[Node]:
    """What a group of nodes reads from outside."""
    inside = set(nodes)
    return {source for node in nodes for source in node.all_input_nodes if source not in inside}
