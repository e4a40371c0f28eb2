"""Weights that Dynamo need not hand over at each call.

Dynamo lifts parameters and buffers: each call finds them all through their modules and checks the
kind of each (263 in a MobileNetV2). The first graph of a piece of code is bound to
the very tensors it was traced with instead: a guard holds their identity, their placeholders are
erased (and with them Dynamo's code that finds them), and the engine itself sees changes.

Where the guard fails (another instance of the module, another parameter in the place), Dynamo
compiles again, and that graph takes any weights of the kind as arguments: equal layers share it.
A parameter that another thread replaces during the first compile fails it, as whatever else Dynamo
specialises on would.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from torch_aio.capture import compat

Eager = Callable[..., Any]
References = Mapping[int, "weakref.ref[torch.Tensor]"]

_first: dict[int, set[int]] = {}
"""By Dynamo's number of a piece of code: the ids of its first graph's weights (none: they vary)."""


@dataclass(frozen=True)
class Bound:
    """``weights`` by position among ``count`` arguments; the other arguments still arrive.

    ``guards`` are Dynamo's for the kinds of the weights, ``graph`` is Dynamo's.
    """

    weights: References
    count: int
    guards: Sequence[Any]
    graph: fx.Graph

    def take_effect(self) -> None:
        """Guard identities, and leave of the graph the placeholders that Dynamo reads next."""
        for guard in self.guards:
            hash(guard)  # kept by the guard, so that it is found in Dynamo's set as it was
            guard.create_fn = compat.GuardBuilder.ID_MATCH
        placeholders = self.graph.find_nodes(op="placeholder")
        kept = {placeholders[i] for i in self.arriving}
        for node in reversed(self.graph.nodes):
            if node.op == "output":
                node.args = ((),)
            elif node not in kept:
                self.graph.erase_node(node)

    @property
    def arriving(self) -> list[int]:
        """Positions of the arguments that Dynamo still passes."""
        return [i for i in range(self.count) if i not in self.weights]

    def complete(self, function: Eager) -> Eager:
        """``function`` of all arguments as a function of the arriving ones."""
        arriving = self.arriving
        found = [self.weights.get(i, _nothing) for i in range(self.count)]

        def call(*args: Any) -> Any:
            everything: list[Any] = [find() for find in found]
            for i, value in zip(arriving, args, strict=True):
                everything[i] = value
            return function(*everything)

        return call


def bound(gm: fx.GraphModule, constants: Mapping[int, tuple[str, torch.Tensor]]) -> Bound | None:
    """The weights (position -> name, tensor) that ``gm``, Dynamo's, may be bound to, or None.

    Nothing has happened before ``take_effect``.
    """
    tensors = [tensor for _, tensor in constants.values()]
    if not constants or torch.is_grad_enabled() or not _may_bind(tensors):
        return None
    placeholders = gm.graph.find_nodes(op="placeholder")
    by_source = _tensor_guards()
    guards = [by_source.get(compat.source_of(placeholders[i])) for i in constants]
    if None in guards:
        return None
    references = {i: weakref.ref(tensor) for i, (_, tensor) in constants.items()}
    return Bound(references, len(placeholders), guards, gm.graph)


def forget() -> None:
    """Forget which weights graphs are bound to: Dynamo forgets them too."""
    _first.clear()


def _may_bind(tensors: Collection[torch.Tensor]) -> bool:
    """For the first graph of the code, and others while nothing showed that its weights vary."""
    compile_id = compat.CompileContext.current_compile_id()
    frame = getattr(compile_id, "frame_id", None)
    if frame is None:
        return False
    identities = {id(tensor) for tensor in tensors}
    if not _first.setdefault(frame, identities) >= identities:
        _first[frame] = set()
    return _first[frame] >= identities


def _tensor_guards() -> dict[str, Any]:
    """Dynamo's guards for the kind of a tensor, by where it is found."""
    context = compat.TracingContext.try_get()
    guards = () if context is None else context.guards_context.dynamo_guards
    return {guard.name: guard for guard in guards if guard.create_fn_name() == "TENSOR_MATCH"}


def _nothing() -> None:
    return None
