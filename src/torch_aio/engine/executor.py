"""The executor: a flat list of networks and ATen calls over numbered slots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.fx import GraphModule, Node, map_arg

from torch_aio import config
from torch_aio.engine.constants import ConstantPool
from torch_aio.engine.packs import Pack
from torch_aio.plan.lowering import Constant
from torch_aio.plan.plan import Plan
from torch_aio.runtime.network import Network, Packed
from torch_aio.runtime.profile import timed


@dataclass(frozen=True)
class Constants:
    """All that a variant knows of one state of the weights.

    ``networks``: packed constants, by network; ``values``: what ATen nodes and outputs read;
    ``packs`` keeps the shared packs alive.
    """

    networks: Mapping[NetworkItem, Packed]
    values: Mapping[Node, Any]
    packs: tuple[Pack, ...]


@dataclass(frozen=True, eq=False)
class Part:
    """Claimed nodes (graph order) that compute ``outputs`` from ``inputs``."""

    nodes: tuple[Node, ...]
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class NetworkItem(Part):
    """Run ``network`` (made from ``plan``): from ``inputs`` to the values of ``outputs``."""

    plan: Plan
    network: Network

    def pack(self, pool: ConstantPool) -> tuple[Packed, list[Pack]]:
        """The network's constants for the weights in ``pool``, and the packs to keep alive."""
        recipes = self.plan.constants
        made = [pool.pack(c) if isinstance(c, Constant) else None for c in recipes]
        packed = Packed([None if pack is None else pack.tensor for pack in made])
        return packed, [pack for pack in made if pack is not None]

    def run(self, values: dict[Node, Any], env: Mapping[str, int], constants: Constants) -> None:
        """Run, reading and writing ``values``."""
        packed = constants.networks[self]
        results = self.network([values[n] for n in self.inputs], env, packed)
        values.update(zip(self.outputs, results, strict=True))


class AtenItem:
    """Run one node by PyTorch."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._call: Callable[..., Any] = node.target  # type: ignore[assignment]
        if config.read().profiler:
            self._call = timed(self._call, str(node.target), node.name)

    def run(
        self,
        values: dict[Node, Any],
        env: Mapping[str, int],  # noqa: ARG002 - the signature of an item
        constants: Constants,  # noqa: ARG002 - likewise
    ) -> None:
        """Run, reading and writing ``values``."""
        node = self.node
        args = map_arg(node.args, values.__getitem__)
        kwargs = map_arg(node.kwargs, values.__getitem__)
        values[node] = self._call(*args, **kwargs)


Item = NetworkItem | AtenItem
Before = Callable[[NetworkItem, Sequence[Any]], None]


class Executor:
    """Runs ``items`` in order on the placeholders' values and returns the graph's outputs.

    ``uses`` are the constant nodes that ATen nodes and outputs read.
    """

    def __init__(self, gm: GraphModule, items: Sequence[Item], uses: set[Node]) -> None:
        self._placeholders = tuple(n for n in gm.graph.nodes if n.op == "placeholder")
        (output,) = (n for n in gm.graph.nodes if n.op == "output")
        self._outputs: Any = output.args[0]
        self._uses = uses
        self._items = tuple(_with_frees(items, self._outputs))

    def constants(self, pool: ConstantPool) -> Constants:
        """Everything that depends on the weights, for the state in ``pool``."""
        networks: dict[NetworkItem, Packed] = {}
        packs: list[Pack] = []
        for item, _ in self._items:
            if isinstance(item, NetworkItem):
                networks[item], made = item.pack(pool)
                packs += made
        used = {node: pool.pack(Constant((node,), None)) for node in self._uses}
        values = {node: pack.tensor for node, pack in used.items()}
        return Constants(networks, values, (*packs, *used.values()))

    def __call__(
        self,
        inputs: Sequence[Any],
        env: Mapping[str, int],
        constants: Constants,
        before: Before | None = None,
    ) -> tuple[Any, ...]:
        """The outputs for the values of the placeholders, in order.

        ``before`` sees each network and its input tensors before it runs.
        """
        values = dict(constants.values)
        values.update(zip(self._placeholders, inputs, strict=True))
        for item, frees in self._items:
            if before is not None and isinstance(item, NetworkItem):
                before(item, [values[n] for n in item.inputs])
            item.run(values, env, constants)
            for node in frees:
                del values[node]
        return tuple([values[o] if isinstance(o, Node) else o for o in self._outputs])


Run = Callable[[Sequence[Any], Mapping[str, int], Constants], tuple[Any, ...]]


def single(item: NetworkItem, gm: GraphModule) -> Run | None:
    """The whole graph as one native call, where the network's outputs are the graph's, in order."""
    (output,) = (n for n in gm.graph.nodes if n.op == "output")
    if tuple(output.args[0]) != item.outputs:
        return None
    placeholders = [n for n in gm.graph.nodes if n.op == "placeholder"]
    positions = [placeholders.index(n) for n in item.inputs]
    network = item.network
    if positions == list(range(len(placeholders))):
        return lambda inputs, env, constants: tuple(network(inputs, env, constants.networks[item]))
    return lambda inputs, env, constants: tuple(
        network([inputs[i] for i in positions], env, constants.networks[item])
    )


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
