"""One variant of a compiled graph: passes, plans and an executor, valid under its guards."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy

import torch
from torch.fx import Graph, GraphModule, Node

from torch_aio import config
from torch_aio.engine import against_aten, networks
from torch_aio.engine.captured import Captured
from torch_aio.engine.constants import ConstantPool
from torch_aio.engine.executor import AtenItem, Executor, Item, NetworkItem, Part, Run, single
from torch_aio.graph import pipeline
from torch_aio.ir.symbols import Guards
from torch_aio.plan.choice import Answer, best_guess
from torch_aio.plan.winners import Winners
from torch_aio.runtime.machine import Machine


class Variant:
    """The graph compiled for every ``env`` that gives the same answers about sizes.

    ``answer`` decides what the lowering leaves open; ``back`` names nodes that go back to PyTorch.
    """

    def __init__(
        self,
        captured: Captured,
        options: config.Options,
        host: Machine,
        pool: ConstantPool,
        env: Mapping[str, int],
        answer: Answer = best_guess,
        back: frozenset[str] = frozenset(),
    ) -> None:
        self.host, self._options = host, options
        self._captured, self.back = captured, back
        self.guards = Guards(dict(env))
        with self.guards.active(), torch.no_grad():
            self.gm = _copy(captured.module)
            self.report = pipeline.run(self.gm, config.read().fuel, pipeline.chosen(options, back))
        self.parts = networks.parts(self.gm)
        self._lower(pool, answer)

    def holds(self, env: Mapping[str, int]) -> bool:
        """Whether the variant is valid for these symbol values."""
        return self.guards.holds(env)

    def rival(self, part: Part, pool: ConstantPool, answer: Answer) -> NetworkItem:
        """A network of this graph, lowered with other answers."""
        guards = Guards(self.guards.hints, dict(self.guards.facts))
        with guards.active(), torch.no_grad():
            return networks.make(part, pool, self.host, self._options, answer)

    def lowered(self, pool: ConstantPool, answer: Answer) -> Variant:
        """The same graph, lowered with other answers."""
        other = copy(self)
        other.guards = Guards(self.guards.hints, dict(self.guards.facts))
        other._lower(pool, answer)
        return other

    def without(self, nodes: Collection[str], pool: ConstantPool, answer: Answer) -> Variant:
        """The same graph with these nodes left to PyTorch, too."""
        back = self.back.union(nodes)
        made = self._captured, self._options, self.host, pool, self.guards.hints, answer, back
        return Variant(*made)

    def settled(self, pool: ConstantPool, known: Winners | None) -> Variant:
        """The same graph with those steps left to PyTorch that it is known to run faster."""
        if known is None or not known.full:
            return self
        asked = against_aten.labelled(self.parts)
        nodes = [n.name for q, group in asked if known(q) == against_aten.ATEN for n in group]
        return self.without(nodes, pool, known) if nodes else self

    def _lower(self, pool: ConstantPool, answer: Answer) -> None:
        with self.guards.active(), torch.no_grad():
            self.networks = {
                stage: networks.make(part, pool, self.host, self._options, answer)
                for stage, part in self.parts.items()
            }
        items = _items(self.gm, self.networks)
        self.executor = Executor(self.gm, items, _constant_uses(self.gm, items))
        self.run: Run = self.executor
        if len(items) == 1 and isinstance(items[0], NetworkItem):
            self.run = single(items[0], self.gm) or self.executor


def _copy(module: GraphModule) -> GraphModule:
    graph = Graph()
    output = graph.graph_copy(module.graph, {})
    graph.output(output)
    (node,) = (n for n in graph.nodes if n.op == "output")
    (original,) = (n for n in module.graph.nodes if n.op == "output")
    node.meta = dict(original.meta)
    return GraphModule(module, graph)


def _items(gm: GraphModule, compiled: Mapping[int, NetworkItem]) -> list[Item]:
    """Networks and ATen nodes by stage, updates of inputs last; sizes where ATen reads them."""
    wanted = _read_by_aten(gm)
    aten: dict[int, list[Item]] = {}
    for node in gm.graph.nodes:
        verdict = node.meta.get("verdict")
        if verdict and (verdict.is_pytorchs or (verdict.kind == "size" and node in wanted)):
            aten.setdefault(node.meta["stage"], []).append(AtenItem(node))
    items: list[Item] = []
    for stage in sorted({*aten, *compiled}):
        items += [compiled[stage]] if stage in compiled else aten[stage]
    return items


def _read_by_aten(gm: GraphModule) -> set[Node]:
    wanted: set[Node] = set()
    for node in reversed(list(gm.graph.nodes)):
        verdict = node.meta.get("verdict")
        if node.op == "output" or (verdict and verdict.is_pytorchs) or node in wanted:
            wanted.update(n for n in node.all_input_nodes)
    return wanted


def _constant_uses(gm: GraphModule, items: Sequence[Item]) -> set[Node]:
    """Constant nodes that ATen nodes or the output read as tensors."""
    readers = [i.node for i in items if isinstance(i, AtenItem)]
    (output,) = (n for n in gm.graph.nodes if n.op == "output")
    sources = {s for reader in (*readers, output) for s in reader.all_input_nodes}
    return {s for s in sources if s.op == "get_attr" or s.meta.get("constant")}
