"""One variant of a compiled graph: passes, plans and an executor, valid under its guards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import torch
from torch.fx import Graph, GraphModule, Node

from torch_aio import config
from torch_aio.engine.captured import Captured
from torch_aio.engine.constants import ConstantPool
from torch_aio.engine.executor import AtenItem, Executor, Item, NetworkItem, Run, single
from torch_aio.errors import CompileError
from torch_aio.graph import pipeline
from torch_aio.graph.cut import networks
from torch_aio.ir.symbols import Guards
from torch_aio.kernels.spec import generate
from torch_aio.plan.lower import lower
from torch_aio.plan.plan import Plan
from torch_aio.plan.value import Step
from torch_aio.runtime.machine import Machine
from torch_aio.runtime.network import Network
from torch_aio.runtime.table import Bound


class Variant:
    """The graph compiled for every ``env`` that gives the same answers about sizes."""

    def __init__(
        self,
        captured: Captured,
        options: config.Options,
        host: Machine,
        pool: ConstantPool,
        env: Mapping[str, int],
    ) -> None:
        self.guards = Guards(dict(env))
        with self.guards.active(), torch.no_grad():
            self.gm = _copy(captured.module)
            self.report = pipeline.run(self.gm, config.read().fuel)
            self.networks = _networks(self.gm, host, pool, options)
        items = _items(self.gm, self.networks)
        self.executor = Executor(self.gm, items, _constant_uses(self.gm, items))
        self.run: Run = self.executor
        if len(items) == 1 and isinstance(items[0], NetworkItem):
            self.run = single(items[0], self.gm) or self.executor

    def holds(self, env: Mapping[str, int]) -> bool:
        """Whether the variant is valid for these symbol values."""
        return self.guards.holds(env)


def _copy(module: GraphModule) -> GraphModule:
    graph = Graph()
    output = graph.graph_copy(module.graph, {})
    graph.output(output)
    (node,) = (n for n in graph.nodes if n.op == "output")
    (original,) = (n for n in module.graph.nodes if n.op == "output")
    node.meta = dict(original.meta)
    return GraphModule(module, graph)


def _networks(
    gm: GraphModule, host: Machine, pool: ConstantPool, options: config.Options
) -> dict[int, NetworkItem]:
    result = {}
    guards = Guards({})
    for stage, nodes in networks(gm).items():
        inside = set(nodes)
        inputs = _ordered(
            source
            for node in nodes
            for source in node.all_input_nodes
            if source not in inside and _is_input(source)
        )
        outputs = [n for n in nodes if any(user not in inside for user in n.users)]
        outputs = _in_output_order(gm, outputs)
        plan = lower(nodes, inputs, outputs, pool.packed_value, host.isa, guards, options=options)
        names = [(step.spec.name, step.label) for step in plan.steps]
        network = Network(_binder(plan), _kernels(plan, host), plan.first_constant, host, names)
        result[stage] = NetworkItem(plan, network, tuple(inputs), tuple(outputs))
    return result


def _binder(plan: Plan) -> Callable[[Mapping[str, int]], Bound]:
    """``plan.bind``, whose failures are failures to compile."""

    def bind(env: Mapping[str, int]) -> Bound:
        try:
            return plan.bind(env)
        except Exception as error:
            raise CompileError(f"sizes {dict(env)}: {type(error).__name__}: {error}") from error

    return bind


def _kernels(plan: Plan, host: Machine) -> list[int]:
    return [_kernel(step, host) for step in plan.steps]


def _kernel(step: Step, host: Machine) -> int:
    try:
        return host.jit.address(step.spec.name, partial(generate, step.spec, host.isa))
    except Exception as error:
        what = f"kernel {step.spec.name}: {type(error).__name__}: {error}"
        raise CompileError(what, step.label) from error


def _in_output_order(gm: GraphModule, nodes: Sequence[Node]) -> list[Node]:
    """Network outputs in the order of the graph's, so that one network needs no rearranging."""
    (output,) = (n for n in gm.graph.nodes if n.op == "output")
    rank = {n: i for i, n in reversed(list(enumerate(output.args[0]))) if isinstance(n, Node)}
    return sorted(nodes, key=lambda n: rank.get(n, len(rank)))


def _is_input(node: Node) -> bool:
    verdict = node.meta.get("verdict")
    if node.op == "get_attr" or (verdict and verdict.kind in ("constant", "size")):
        return False
    return hasattr(node.meta["spec"], "dtype")


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


def _ordered(nodes: Iterable[Node]) -> list[Node]:
    return list(dict.fromkeys(nodes))
