"""TorchScript graphs whose control flow depends on data: straight-line stretches on the engine.

    y = relu(linear(x, w))              r = aio::run(7, [x], [])
    z = tanh(y)                   ->    y, z = r
    if bool(z.sum() > 0): ...           if bool(...): ...

The rewritten graph lives in a function of our own: segment ids mean nothing in another process,
so the user's module keeps its graph.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence
from typing import Any

import torch

from torch_aio import config, log
from torch_aio.capture.ts_call import key_of, template_of
from torch_aio.capture.ts_capture import Source
from torch_aio.capture.ts_cut import stretches
from torch_aio.capture.ts_specialize import Specializer, sizes
from torch_aio.capture.ts_values import Handover

_MISSING: Any = object()
_segments: weakref.WeakValueDictionary[int, Segment] = weakref.WeakValueDictionary()
_ids = itertools.count()
_library: Any = None


class Segmented:
    """A method whose stretches are segments; called with the method's arguments."""

    def __init__(self, source: Source, module: Any) -> None:
        self.segments: list[Segment] = []
        self._module = module
        self._original = torch._C._create_function_from_graph("original", source.graph.copy())
        graph = source.graph.copy()
        _register()
        for stretch in stretches(graph):
            segment = Segment(stretch.body, f"{source.name}[{len(self.segments)}]")
            stretch.replace_by(graph, segment.number)
            self.segments.append(segment)
        torch._C._jit_pass_dce(graph)
        graph.lint()
        self._function = torch._C._create_function_from_graph("segmented", graph)

    def __call__(self, *args: Any) -> Any:  # noqa: D102 - the method's own call
        tensors: list[torch.Tensor] = []
        template_of(args, tensors, [])
        function = self._function
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            function = self._original
        return function(self._module, *args)


class Segment:
    """A straight-line graph of tensors and ints, specialised by shape like a method."""

    def __init__(self, graph: Any, name: str) -> None:
        self.number = next(_ids)
        _segments[self.number] = self
        self.specializer = Specializer(Source(graph, name, False))
        self._plain = torch._C._create_function_from_graph("segment", _returning_list(graph))
        self._broken = False

    def __call__(self, tensors: Sequence[torch.Tensor], ints: Sequence[int]) -> list[Any]:
        """What the stretch computes, as a list."""
        if self._broken:
            return self._as_is(tensors, ints)
        flat: list[torch.Tensor] = []
        try:
            key = key_of([*tensors, *ints], flat)
        except Handover:
            return self._as_is(tensors, ints)
        try:
            entry = self.specializer.entries.get(key, _MISSING)
            if entry is _MISSING:
                entry = self.specializer.add(key, ([*tensors, *ints], []))
            if entry is None:
                return self._as_is(tensors, ints)
            outputs = entry.run(*flat)
            env = {}
            if entry.symbols is not None:
                env = sizes(entry.symbols, ([*tensors, *ints], []))
            result = entry.result(outputs, env)
        except Exception as error:
            return self._failed(error, tensors, ints)
        return list(result) if isinstance(result, (tuple, list)) else [result]

    def _as_is(self, tensors: Sequence[torch.Tensor], ints: Sequence[int]) -> list[Any]:
        return list(self._plain(*tensors, *ints))

    def _failed(
        self, error: Exception, tensors: Sequence[torch.Tensor], ints: Sequence[int]
    ) -> list[Any]:
        answer = self._as_is(tensors, ints)
        if config.read().strict:
            raise error
        self._broken = True
        name = self.specializer.source.name
        log.warning("%s runs in TorchScript: %s: %s", name, type(error).__name__, error)
        return answer


def _run(number: int, tensors: Sequence[torch.Tensor], ints: Sequence[int]) -> list[Any]:
    return _segments[number](tensors, ints)


def _register() -> None:
    """Define ``aio::run`` where it is first needed."""
    global _library  # noqa: PLW0603 - an operator is defined once per process
    if _library is None:
        library = torch.library.Library("aio", "FRAGMENT")
        library.define("run(int id, Tensor[] tensors, int[] ints) -> Tensor[]")
        library.impl("run", _run, "CompositeExplicitAutograd")
        _library = library


def _returning_list(graph: Any) -> Any:
    """The graph with its outputs in one list."""
    copy = graph.copy()
    outputs = list(copy.outputs())
    made = copy.create("prim::ListConstruct", outputs, 1)
    made.output().setType(torch._C.ListType(torch._C.TensorType.get()))
    copy.appendNode(made)
    for _ in outputs:
        copy.eraseOutput(0)
    copy.registerOutput(made.output())
    return copy
