"""One call of a TorchScript graph -> the graph form, ready for the engine."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import fx

from torch_aio import config
from torch_aio.capture.ts_call import Leaf, fill, filler
from torch_aio.capture.ts_inplace import is_view
from torch_aio.capture.ts_symbols import Symbols
from torch_aio.capture.ts_values import Emitter, Handover, Number, Value, contains
from torch_aio.capture.ts_walker import Object, Walker
from torch_aio.engine.captured import Captured
from torch_aio.engine.compiled import compile_graph
from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Expr, Int

aten = torch.ops.aten


@dataclass(frozen=True)
class Source:
    """A TorchScript graph and how to read its calls: inputs, then attributes of ``self``."""

    graph: Any
    name: str
    has_self: bool
    reads: tuple[str, ...] = ()
    weights: frozenset[str] = frozenset()  # the reads that are parameters


@dataclass(frozen=True)
class Entry:
    """A compiled call: flat tensors in; ``result`` and ``writes`` read the flat outputs."""

    run: Callable[..., Sequence[Any]]
    result: Callable[[Sequence[Any], Mapping[str, int]], Any]
    writes: tuple[tuple[str, Callable[[Sequence[Any], Mapping[str, int]], Any]], ...]
    updates: bool
    module: fx.GraphModule
    symbols: Symbols | None  # given where the result holds sizes


@dataclass(frozen=True)
class Form:
    """A walked graph with templates of its result and of the attributes it writes."""

    module: fx.GraphModule
    result: Any
    writes: dict[str, Any]
    updates: bool
    live: dict[str, int]
    seconds: float = 0.0

    def run(self, *tensors: Any) -> Sequence[Any]:
        """The graph in plain PyTorch, on the call's own weights."""
        for name, position in self.live.items():
            setattr(self.module, name, tensors[position])
        held = self.live.values()
        result = self.module(*(t for i, t in enumerate(tensors) if i not in held))
        return tuple(result)

    @property
    def works(self) -> bool:
        """Whether there is more to do than handing tensors around."""
        return any(
            isinstance(node.target, torch._ops.OpOverload)
            and node.target not in (aten.clone.default, aten.sym_size.int)
            and not is_view(node.target._schema)
            for node in self.module.graph.nodes
        )


def compiled(source: Source, form: Form, inputs: int, symbols: Symbols | None) -> Entry:
    """Give a traced graph to the engine; Handover if it has nothing to compute."""
    if not form.works:
        raise Handover("there is nothing to compute")
    captured = Captured(
        module=form.module,
        arguments=tuple(i for i in range(inputs) if i not in form.live.values()),
        fallback=form.run,
        name=source.name,
        door="TorchScript",
        live=form.live,
        seconds=form.seconds,
    )
    options = config.Options.from_mapping(None)
    if options.release_weights:
        gc.collect()  # a module that was traced and frozen, then dropped, is a cycle with weights
    run = compile_graph(captured, options)
    writes = tuple((name, filler(t)) for name, t in form.writes.items())
    sized = symbols if contains((form.result, form.writes), Expr) else None
    return Entry(run, filler(form.result), writes, form.updates, form.module, sized)


def trace(
    source: Source,
    template: Any,
    specs: Sequence[TensorSpec],
    ints: Sequence[Int],
    symbols: Symbols | None,
    weights: Mapping[int, tuple[str, torch.Tensor]] | None = None,
) -> Form:
    """Walk ``source`` for arguments that look like ``template`` filled with ``specs``.

    ``template`` is (arguments, attributes); ``weights`` are those of its tensors that are
    parameters of the module: constants to the graph, handed over at each call.
    Raises DataDependent, Handover or CaptureError.
    """
    begin = perf_counter()
    e = Emitter()
    weights = weights or {}
    inputs = [
        e.constant(weights[i][1], weights[i][0]) if i in weights else e.placeholder(f"x{i}", spec)
        for i, spec in enumerate(specs)
    ]
    live = {str(inputs[i].node.target): i for i in weights}
    slots = [value.node for value in inputs]
    if symbols is not None:
        e.symbols = {name: (slots[i], d) for name, (i, d) in symbols.owners.items()}
    arguments, attributes = fill(template, inputs, ints)
    walker = Walker(e, dict(zip(source.reads, attributes, strict=True)))
    walker.foreign |= {id(v) for v in attributes if isinstance(v, (list, dict))}
    outputs = walker.run(source.graph, ([Object()] if source.has_self else []) + list(arguments))
    exits = Exits(e, walker, dict(zip(map(id, inputs), slots, strict=True)))
    updates = exits.write_back()
    result = exits.template(outputs[0] if len(outputs) == 1 else tuple(outputs))
    writes = {name: exits.template(value) for name, value in walker.writes.items()}
    e.graph.output(tuple(exits.flat))
    e.graph.eliminate_dead_code()
    module = fx.GraphModule(e.root, e.graph)
    return Form(module, result, writes, updates, live, perf_counter() - begin)


class Exits:
    """Collects what leaves the graph: flat results, and updates of inputs."""

    def __init__(self, e: Emitter, walker: Walker, slots: dict[int, fx.Node]) -> None:
        self.flat: list[Any] = []
        self._e = e
        self._walker = walker
        self._slots = slots
        self._written: set[int] = set()
        self._seen: dict[fx.Node, Leaf] = {}

    def write_back(self) -> bool:
        """``copy_`` every updated input; whether there is one."""
        for value in self._walker.updated:
            slot = self._slots.get(id(value))
            if slot is not None:
                node = self._e.graph.call_function(aten.copy_.default, (slot, value.node))
                node.meta.update(spec=value.spec, source="", path="")
                self._written.add(id(value))
        return bool(self._written)

    def template(self, value: Any) -> Any:
        """``value`` with ``Leaf``s for everything that the call computes."""
        if isinstance(value, (list, tuple)):
            return type(value)(self.template(v) for v in value)
        if isinstance(value, dict):
            return {k: self.template(v) for k, v in value.items()}
        if isinstance(value, (Value, Number, torch.Tensor)):
            return self._leaf(self._node(value))
        if isinstance(value, (Expr, int, float, bool, str, type(None), torch.device)):
            return value
        raise Handover(f"the result holds a {type(value).__name__}")

    def _node(self, value: Any) -> fx.Node:
        if isinstance(value, torch.Tensor):
            value = self._e.call(aten.clone.default, value)
        elif isinstance(value, Number):
            value = self._e.lift(value)
        self._walker._refresh(value)
        slot = self._slots.get(id(value))
        if slot is not None:
            return slot  # by now it holds what was copied into it
        return self._not_a_view_of_an_update(value)

    def _not_a_view_of_an_update(self, value: Value) -> fx.Node:
        base = value
        while base.view is not None:
            base = base.view.parent
        if id(base) in self._written:
            raise Handover("a view of an updated input is returned")
        return value.node

    def _leaf(self, node: fx.Node) -> Leaf:
        if node not in self._seen:
            self._seen[node] = Leaf(len(self.flat))
            self.flat.append(node)
        return self._seen[node]
