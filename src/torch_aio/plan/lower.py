"""Nodes of one network to a plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.fx import Node

from torch_aio.codegen.isa import Isa
from torch_aio.config import Options
from torch_aio.errors import CompileError
from torch_aio.ir.symbols import Guards
from torch_aio.plan.choice import Answer, best_guess
from torch_aio.plan.epilogue import group
from torch_aio.plan.families.reorder import clear_halo
from torch_aio.plan.joined import places
from torch_aio.plan.lowering import Constant, Group, Lowering, Table
from torch_aio.plan.plan import Plan, TensorPlan
from torch_aio.plan.prologue import join
from torch_aio.plan.rows import row_of


def lower(
    nodes: Sequence[Node],
    inputs: Sequence[Node],
    outputs: Sequence[Node],
    packed_value: Callable[[Constant], torch.Tensor],
    isa: Isa,
    guards: Guards,
    answer: Answer = best_guess,
    options: Options | None = None,
) -> Plan:
    """Lower claimed ``nodes`` (graph order) that compute ``outputs`` from ``inputs``.

    ``answer`` decides what families leave open.
    Raises CompileError naming the node that cannot be lowered.
    """
    for node in outputs:
        node.meta["escapes"] = True
    groups = join(group(nodes, row_of), nodes, row_of)
    halos = _halos(nodes)
    ctx = Lowering(
        isa,
        inputs,
        outputs,
        packed_value,
        options or Options(),
        halos=halos,
        places=places(nodes, halos),
        row_of=row_of,
        clear_halo=clear_halo,
        answer=answer,
    )
    last = {g.output: g for g in groups}
    inside = {node for g in groups for node in _nodes(g)}
    for node in nodes:
        try:
            if node in last:
                _lower_group(ctx, last[node])
            elif node not in inside:
                _lower_view(ctx, node)
        except Exception as error:
            raise CompileError(f"{type(error).__name__}: {error}", describe(node)) from error
    specs = [node.meta["spec"] for node in outputs]
    borders = [TensorPlan(s.shape, s.stride, s.dtype) for s in specs]
    return Plan(ctx.steps, len(inputs), borders, _read_constants(ctx), guards, ctx.choices)


def describe(node: Node) -> str:
    """A node as a message names it: its operation, and the user's line where known."""
    where = node.meta.get("source", "")
    return f"{node.name} = {node.target}" + (f" ({where})" if where else "")


def _read_constants(ctx: Lowering) -> list[Constant | Table]:
    """The constants that steps read, numbered anew: a weight that was looked at is not kept."""
    buffers = dict.fromkeys(b for s in ctx.steps for b in s.reads if b.kind == "constant")
    kept = []
    for index, buffer in enumerate(sorted(buffers, key=lambda b: b.index)):
        kept.append(ctx.constants[buffer.index])
        buffer.index = index
    return kept


def _lower_group(ctx: Lowering, g: Group) -> None:
    ctx.label = g.output.name
    for node in _nodes(g)[:-1]:
        node.meta["fused"] = g.output.name
    row = row_of(g.anchor or g.output)
    assert row is not None
    if row.lower is None:
        raise TypeError(f"{row.op} has no lowering of its own")
    row.lower(ctx, g)


def _nodes(g: Group) -> list[Node]:
    """All nodes of a group, those in front of its anchor included."""
    return [*(g.before.nodes if g.before else ()), *g.nodes]


def _lower_view(ctx: Lowering, node: Node) -> None:
    ctx.label = node.name
    row = row_of(node)
    if row is None or row.view is None:
        raise TypeError(f"{node.target} is not in the operator table")
    value = row.view(ctx, node)
    if value is not None:
        ctx.bind(node, value)


def _halos(nodes: Sequence[Node]) -> dict[Node, tuple[int, int]]:
    """The widest halo that the users of each value ask for."""
    halos: dict[Node, tuple[int, int]] = {}
    for node in nodes:
        row = row_of(node)
        halo = row.halo(node) if row else None
        if halo:
            source = node.all_input_nodes[0]
            top, left = halos.get(source, (0, 0))
            halos[source] = (max(top, halo[0]), max(left, halo[1]))
    return halos
