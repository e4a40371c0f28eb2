"""The executor: a flat list of networks and ATen calls over numbered slots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.fx import GraphModule, Node, map_arg

from torch_aio.engine.constants import ConstantPool
from torch_aio.plan.plan import Plan
from torch_aio.runtime.network import Network


@dataclass(frozen=True)
class NetworkItem:
    """Run ``network`` (made from ``plan``) on ``inputs``; its tensors are the values of ``outputs``."""

    plan: Plan
    network: Network
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]

    def run(self, values: dict[Node, Any], env: Mapping[str, int]) -> None:
        """Run, reading and writing ``values``."""
        results = self.network([values[n] for n in self.inputs], env)
        values.update(zip(self.outputs, results, strict=True))


@dataclass(frozen=True)
class AtenItem:
    """Run one node by PyTorch."""

    node: Node

    def run(self, values: dict[Node, Any], env: Mapping[str, int]) -> None:  # noqa: ARG002 - the signature of an item
        """Run, reading and writing ``values``."""
        node = self.node
        args = map_arg(node.args, values.__getitem__)
        kwargs = map_arg(node.kwargs, values.__getitem__)
        values[node] = node.target(*args, **kwargs)  # type: ignore[operator]


Item = NetworkItem | AtenItem


class Executor:
    """Runs ``items`` in order on the placeholders' values and returns the graph's outputs."""

    def __init__(
        self, gm: GraphModule, items: Sequence[Item], constants: ConstantPool, uses: set[Node]
    ) -> None:
        self._placeholders = tuple(n for n in gm.graph.nodes if n.op == "placeholder")
        (output,) = (n for n in gm.graph.nodes if n.op == "output")
        self._outputs: Any = output.args[0]
        self._uses = uses
        self._items = tuple((item, frees) for item, frees in _with_frees(items, self._outputs))
        self.load_constants(constants)

    def load_constants(self, constants: ConstantPool) -> None:
        """Use these values for the constants that ATen nodes and outputs read."""
        self._constants = {node: constants.value(node) for node in self._uses}

    def __call__(self, inputs: Sequence[Any], env: Mapping[str, int]) -> tuple[Any, ...]:
        """The outputs for the values of the placeholders, in order."""
        values = dict(self._constants)
        values.update(zip(self._placeholders, inputs, strict=True))
        for item, frees in self._items:
            item.run(values, env)
            for node in frees:
                del values[node]
        return tuple(values[o] if isinstance(o, Node) else o for o in self._outputs)


def single(item: NetworkItem, gm: GraphModule) -> Callable[..., tuple[Any, ...]] | None:
    """The whole graph as one native call, where the network's outputs are the graph's, in order."""
    (output,) = (n for n in gm.graph.nodes if n.op == "output")
    if tuple(output.args[0]) != item.outputs:
        return None
    placeholders = [n for n in gm.graph.nodes if n.op == "placeholder"]
    positions = tuple(placeholders.index(n) for n in item.inputs)
    network = item.network
    if positions == tuple(range(len(placeholders))):
        return lambda inputs, env: tuple(network(inputs, env))
    return lambda inputs, env: tuple(network([inputs[i] for i in positions], env))


def _with_frees(items: Sequence[Item], outputs: Any) -> list[tuple[Item, tuple[Node, ...]]]:
    """Each item with the values that no later one reads: freed as soon as eager would."""
    last: dict[Node, int] = {}
    made: set[Node] = set()
    for i, item in enumerate(items):
        reads = item.inputs if isinstance(item, NetworkItem) else item.node.all_input_nodes
        writes = item.outputs if isinstance(item, NetworkItem) else (item.node,)
        made.update(writes)
        last.update(dict.fromkeys((*reads, *writes), i))
    kept = {o for o in outputs if isinstance(o, Node)}
    frees: dict[int, list[Node]] = {}
    for node, i in last.items():
        if node in made and node not in kept:
            frees.setdefault(i, []).append(node)
    return [(item, tuple(frees.get(i, ()))) for i, item in enumerate(items)]
