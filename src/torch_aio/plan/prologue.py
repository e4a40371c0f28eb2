"""Elementwise chains in front of a kernel that reads rows: one pass over memory instead of two.

    s = a + b; y = layer_norm(s)  ->  one step, which also writes s where others read it

A chain that ends in a matrix product or another anchor stays behind that one: there it costs no
pass at all. The rest joins where the kernel has room for its operands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.fx import Node

from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Int, product
from torch_aio.plan.epilogue import MOST_NODES, MOST_OPERANDS, operands
from torch_aio.plan.lowering import Group
from torch_aio.plan.row import Row
from torch_aio.plan.strides import reshaped


def join(
    groups: list[Group], nodes: Sequence[Node], row_of: Callable[[Node], Row | None]
) -> list[Group]:
    """The groups, without those that became the prologue (``before``) of another."""
    order = {node: i for i, node in enumerate(nodes)}
    home = {node: g for g in groups for node in g.nodes}
    joined: set[int] = set()
    for g in groups:
        anchor = g.anchor
        row = row_of(anchor) if anchor is not None else None
        if anchor is None or row is None or not (kind := row.prologue(anchor)):
            continue
        source: Any = anchor.args[0]
        before = home.get(source)
        if before is None or before.anchor is not None or id(before) in joined:
            continue
        if _may_join(before, g, anchor, home, order, keeps=kind == "kept"):
            g.before = before
            joined.add(id(before))
    return [g for g in groups if id(g) not in joined]


def _may_join(
    before: Group, g: Group, anchor: Node, home: dict[Node, Group], order: dict[Node, int],
    *, keeps: bool,
) -> bool:  # fmt: skip
    value = before.output
    spec, kinds = value.meta["spec"], {value.meta.get("layout"), g.output.meta.get("layout")}
    if value is not anchor.args[0] or "blocked" in kinds:
        return False
    if anchor.all_input_nodes.count(value) > 1 or spec.dtype != anchor.meta["spec"].dtype:
        return False
    others = [user for user in value.users if user is not anchor]
    if (others or value.meta.get("escapes")) and not (keeps and spec.is_contiguous):
        return False
    if any(_place(user, home, order) <= order[g.output] for user in others):
        return False
    read = operands(before.nodes) | operands(g.nodes) - {value}
    if len(before.nodes) + len(g.nodes) > MOST_NODES or len(read) > MOST_OPERANDS:
        return False
    return all(_is_of_rows(node, spec.shape) for node in operands(before.nodes))


def _place(user: Node, home: dict[Node, Group], order: dict[Node, int]) -> int:
    """Where in the order of nodes a reader is lowered; outside the network: behind all."""
    node = home[user].output if user in home else user
    return order.get(node, len(order))


def _is_of_rows(node: Node, shape: tuple[Int, ...]) -> bool:
    """Whether a kernel of rows reads the operand where it lies: in full, by row or by column."""
    spec: TensorSpec = node.meta["spec"]
    if spec.shape == shape:
        rows = (product(shape[:-1]), shape[-1])
        stride = reshaped(spec.shape, spec.stride, rows) if shape else None
        return stride is not None and (stride[1] == 1 or shape[-1] == 1)
    *outer, last = spec.shape or (1,)
    return all(_is_one(size) for size in outer) or _is_one(last)


def _is_one(size: Int) -> bool:
    """Whether a size is 1 by structure, without asking a guard."""
    return isinstance(size, int) and size == 1
