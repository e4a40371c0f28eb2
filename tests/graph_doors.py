"""Graphs as the real front doors make them, for the tests of passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.fx import Graph, GraphModule, Node

from graph_forms import SpecChecker, close, targets
from torch_aio.capture import dynamo, export, torchscript, ts_capture
from torch_aio.engine.captured import Captured
from torch_aio.graph import pipeline
from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Expr, Guards

Graphs = list[GraphModule]


def passed(captured: Captured, args: tuple[Any, ...]) -> GraphModule:
    """A copy of the captured graph after our passes, under the guards of this call."""
    graph = Graph()
    graph.output(graph.graph_copy(captured.module.graph, {}))
    gm = GraphModule(captured.module, graph)
    with Guards(hints(gm, args)).active():
        pipeline.run(gm, passes=pipeline.REWRITES)
    return gm


def hints(gm: GraphModule, args: tuple[Any, ...]) -> dict[str, int]:
    """The values of the graph's symbols in this call."""
    env: dict[str, int] = {}
    for node, value in zip(gm.graph.find_nodes(op="placeholder"), args, strict=True):
        found = node.meta["spec"]
        if isinstance(found, TensorSpec):
            pairs = zip((*found.shape, *found.stride), (*value.shape, *value.stride()), strict=True)
        else:
            pairs = iter([(found, value)])
        env.update(
            {repr(e): int(n) for e, n in pairs if isinstance(e, Expr) and repr(e).isidentifier()}
        )
    return env


@contextmanager
def spying(seen: Graphs) -> Iterator[None]:
    """Let every door's engine be: our passes, then plain PyTorch with every spec checked."""

    def compile_graph(captured: Captured, _options: Any) -> Callable[..., tuple[Any, ...]]:
        def run(*args: Any) -> tuple[Any, ...]:
            own = tuple(args[i] for i in captured.arguments)
            carriers = captured.carriers(args)
            for name, position in captured.live.items():
                setattr(captured.module, name, carriers[position].detach())
            gm = passed(captured, own)
            seen.append(gm)
            env = hints(gm, own)
            return tuple(SpecChecker(gm, env).run(*own))

        return run

    with pytest.MonkeyPatch.context() as patch:
        for door in (dynamo, export, ts_capture):
            patch.setattr(door, "compile_graph", compile_graph)
        yield


def through(
    door: str, model: torch.nn.Module, *inputs: torch.Tensor, dynamic: Any = None
) -> GraphModule:
    """The graph after our passes of a call through ``door``; the answer is checked."""
    seen: Graphs = []
    model = model.eval()
    torchscript.install()
    with torch.no_grad(), spying(seen):
        want = model(*(x.clone() for x in inputs))
        got = DOORS[door](model, inputs, dynamic)(*inputs)
    for a, b in zip(_flat(got), _flat(want), strict=True):
        close(a, b, 2e-5)
    assert seen, f"{door} did not hand over a graph"
    return seen[-1]


def _flat(value: Any) -> list[Any]:
    return torch.utils._pytree.tree_leaves(value)


def _compiled(model: torch.nn.Module, _inputs: Any, dynamic: Any) -> Callable[..., Any]:
    torch.compiler.reset()
    return torch.compile(model, backend="aio", options={"strict": True}, dynamic=dynamic)


def _traced(model: torch.nn.Module, inputs: Any, _dynamic: Any) -> Callable[..., Any]:
    return torch.jit.freeze(torch.jit.trace(model, inputs, strict=False))


def _scripted(model: torch.nn.Module, _inputs: Any, _dynamic: Any) -> Callable[..., Any]:
    return torch.jit.freeze(torch.jit.script(model))


def _exported(model: torch.nn.Module, inputs: Any, dynamic: Any) -> Callable[..., Any]:
    return export.compile(model, inputs, dynamic_shapes=dynamic, options={"strict": True})


DOORS: dict[str, Callable[..., Callable[..., Any]]] = {
    "compile": _compiled,
    "trace": _traced,
    "script": _scripted,
    "export": _exported,
}


def operators(gm: GraphModule) -> set[str]:
    """The operators that run at every call."""
    return set(targets(gm))


def calls(gm: GraphModule, name: str) -> list[Node]:
    """The nodes of one operator, named without namespace and overload."""
    return [n for n in gm.graph.nodes if n.op == "call_function" and name in str(n.target)]
