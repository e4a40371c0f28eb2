"""``torch_aio.verify``: what int8 does to a model's answer, layer by layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Interpreter, Node

from torch_aio.config import Options
from torch_aio.engine.captured import Captured
from torch_aio.engine.compiled import CompiledGraph, compile_graph, observed, recorded
from torch_aio.ir.shapes import spec_of
from torch_aio.tools.explain import copied, distance, is_compiled

BAD = 2.0
"""A layer whose error is more than so many times the median is worth leaving out."""


@dataclass(frozen=True)
class Layer:
    """A converted operator by its names (a merged linear has several), and its own error.

    ``error`` is max|y - fp32| / max|fp32| of its result for the inputs that fp32 gives it.
    """

    names: tuple[str, ...]
    error: float


@dataclass(frozen=True)
class Verification:
    """Converted layers, worst first, and the error of the model's output to fp32.

    ``proposal`` is a filter that leaves the worst out ("": none does, or names have no paths),
    ``proposed`` the output's error with it.
    """

    layers: tuple[Layer, ...]
    output: float
    proposal: str = ""
    proposed: float | None = None

    def __str__(self) -> str:
        lines = [f"{layer.error:8.1e}  {', '.join(layer.names)}" for layer in self.layers]
        lines.append(f"{self.output:8.1e}  the output, {len(self.layers)} layers in int8")
        if self.proposed is not None:
            lines.append(f"{self.proposed:8.1e}  the output with int8_filter={self.proposal}")
        return "\n".join(lines)


def verify(
    model: Callable[..., Any], inputs: torch.Tensor | tuple[Any, ...] | Mapping[str, Any],
    int8_filter: str = ".*",
) -> Verification:  # fmt: skip
    """Tell, and print, the error to fp32 of each layer that the filter converts, and of the output.

    ``inputs``: the model's argument, arguments, or keyword arguments. A module or function goes
    through torch.compile(backend="aio"); a frozen ScriptModule or anything compiled is called as it
    is. Errors are max|y - fp32| / max|fp32|.
    """
    run = model
    if not isinstance(model, torch.jit.ScriptModule) and not is_compiled(model):
        run = torch.compile(model, backend="aio")
    result = _Runs(run, inputs).verification(int8_filter)
    print(result)
    return result


class _Runs:
    """Runs of one compiled model under several filters."""

    def __init__(self, run: Callable[..., Any], inputs: Any) -> None:
        self._run, self._inputs = run, inputs
        with observed() as graphs, torch.no_grad():
            self._call()
        self._graphs: list[CompiledGraph] = graphs

    def verification(self, pattern: str) -> Verification:
        """Errors under a filter, and under a better one."""
        with self._otherwise(""):
            want = self._call()
        with self._otherwise(pattern), recorded() as calls:
            output = distance(self._call(), want)
            layers = [
                layer for graph, call in list(calls.items()) for layer in _layers(graph, *call)
            ]
        layers.sort(key=lambda layer: -layer.error)
        proposal = propose(pattern, layers)
        if not proposal:
            return Verification(tuple(layers), output)
        with self._otherwise(proposal):
            return Verification(tuple(layers), output, proposal, distance(self._call(), want))

    def _call(self) -> Any:
        inputs = copied(self._inputs)
        if isinstance(inputs, Mapping):
            return copied(self._run(**inputs))
        return copied(self._run(*(inputs if isinstance(inputs, tuple) else (inputs,))))

    @contextmanager
    def _otherwise(self, pattern: str) -> Iterator[None]:
        with ExitStack() as stack, torch.no_grad():
            for graph in self._graphs:
                stack.enter_context(graph.otherwise(int8_filter=pattern))
            yield


def propose(pattern: str, layers: list[Layer]) -> str:
    """A filter that converts what ``pattern`` does but the worst of ``layers`` (worst first)."""
    if len(layers) < 2:
        return ""
    usual = median(layer.error for layer in layers)
    worst = [layer for layer in layers if layer.error > BAD * usual] or layers[:1]
    paths = [name.partition(":")[2] for layer in worst for name in layer.names]
    if not all(paths):
        return ""
    return rf"(?!\w+:(?:{'|'.join(map(re.escape, paths))})$)(?:{pattern})"


def _layers(
    graph: CompiledGraph, inputs: tuple[Any, ...], weights: dict[str, torch.Tensor]
) -> list[Layer]:
    """The converted layers of the graph's last variant, on the values of an fp32 run."""
    interpreter = _Interpreter(graph.variants[-1].gm, weights)
    interpreter.run(*inputs)
    return interpreter.layers


class _Interpreter(Interpreter):
    """Runs a graph in PyTorch, and each converted node by our kernel beside."""

    def __init__(self, gm: GraphModule, weights: dict[str, torch.Tensor]) -> None:
        super().__init__(gm)
        self._weights, self.layers = weights, list[Layer]()

    def get_attr(self, target: Any, *_: Any) -> Any:
        """The weight of this call."""
        return self._weights[target]

    def run_node(self, n: Node) -> Any:
        """The fp32 result."""
        result = super().run_node(n)
        if n.meta.get("int8"):
            answer = _alone(n, {source: self.env[source] for source in n.all_input_nodes}, result)
            self.layers.append(Layer(n.meta["names"], distance(answer, result)))
        return result


def _alone(node: Node, values: Mapping[Node, torch.Tensor], result: torch.Tensor) -> torch.Tensor:
    """The result of one node in int8, its operands given."""
    graph, root, inputs, made = Graph(), torch.nn.Module(), [], dict[Node, Node]()
    for n, (source, value) in enumerate(values.items()):
        if source.meta.get("constant"):
            root.register_buffer(f"w{n}", value)
            made[source] = graph.get_attr(f"w{n}")
        else:
            made[source] = graph.placeholder(f"x{n}")
            inputs.append(value)
        made[source].meta["spec"] = spec_of(value)
    copy = graph.node_copy(node, lambda source: made[source])
    copy.meta = {"spec": spec_of(result)}
    graph.output((copy,))
    module = GraphModule(root, graph)
    arguments = tuple(range(len(inputs)))
    captured = Captured(module, arguments, module.forward, node.name, "verify")
    options = Options.from_mapping({"int8_filter": ".*", "strict": True})
    answer: torch.Tensor = compile_graph(captured, options)(*inputs)[0]
    return answer
