"""Weights as they were when they were packed, and whether they still are.

Seen: another tensor in the argument's place (identity), an in-place change (``_version``), another
memory, dtype, shape or strides. Not to be seen: ``p.data.copy_()`` and writes through numpy
(``refresh()``).
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from torch_aio.compiling import untraced
from torch_aio.engine.captured import misfit_of
from torch_aio.engine.packs import STORE
from torch_aio.engine.released import has_storage, release
from torch_aio.errors import ReleasedError
from torch_aio.ir.spec import TensorSpec
from torch_aio.runtime.machine import machine
from torch_aio.runtime.watch import Watch
from torch_aio.runtime.watch import watch as over

_version = operator.attrgetter("_version")


class WeightState:
    """The weights of one packing, in the order of the graph's: referred to weakly, never changed.

    To be made before packing: a change during it then shows at the next call. ``packs`` are what
    variants made of them; they go when a weight goes. ``released``: all memory was given back.
    ``before``: the state of the same tensors that it follows; packs of released ones are there.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], before: WeightState | None = None) -> None:
        self.packs: dict[Any, Any] = {}
        self.before = before
        self._gone: list[Any] = []
        gone, packs = self._gone, self.packs

        def go(ref: Any) -> None:
            gone.append(ref)
            packs.clear()

        self._refs = tuple(weakref.ref(tensor, go) for tensor in tensors)
        self._tracked = tuple(i for i, t in enumerate(tensors) if not t.is_inference())
        self._pick = picker(self._tracked)
        self.released = bool(tensors) and not any(map(has_storage, tensors))
        self._facts = self._facts_of(tensors)
        self._watch: Watch | None = None

    def holds(self) -> bool:
        """Whether the weights live and are as they were; False may be unjustified."""
        return not self._gone and self._watch is not None and self._watch.holds()

    def unmodified(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether these tensors, known to be the same ones, are as they were."""
        return self.holds() or untraced(self._look, tensors)

    def _look(self, tensors: Sequence[torch.Tensor]) -> bool:
        host = machine()
        seen = over(host.differs, tensors) if host is not None else None
        if self.released:
            unmodified = not any(map(has_storage, tensors))
        else:
            unmodified = self._facts_of(tensors) == self._facts
        if unmodified:
            self._watch = seen
        return unmodified

    def release(self, tensors: Sequence[torch.Tensor]) -> None:
        """Give the tensors' memory back: they are packed."""
        self.released = release(tensors)

    def same(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether these are the tensors of this state."""
        return all(ref() is tensor for ref, tensor in zip(self._refs, tensors, strict=True))

    def lasts(self) -> bool:
        """Whether a call could still bring these weights, as they were."""
        tensors = [ref() for ref in self._refs]
        return None not in tensors and self.unmodified(tensors)  # type: ignore[arg-type]

    def _facts_of(self, tensors: Sequence[torch.Tensor]) -> list[Any]:
        versions = list(map(_version, self._pick(tensors)))
        return [versions, *((_address(t), t.dtype, t.shape, t.stride()) for t in tensors)]


def _address(tensor: torch.Tensor) -> int:
    return tensor.data_ptr() if has_storage(tensor) else 0


def misfit(
    names: Sequence[str], specs: Sequence[TensorSpec | None], weights: Sequence[torch.Tensor]
) -> str:
    """How the first weight that does not fit differs from its spec (None: any will do), or ""."""
    for name, spec, weight in zip(names, specs, weights, strict=True):
        if spec is not None and (text := misfit_of(name, weight, spec)):
            return text
    return ""


class Refreshable(Protocol):
    """What ``watch`` takes."""

    def refresh(self) -> None:
        """Pack every weight again at the next call."""


_watched: weakref.WeakSet[Refreshable] = weakref.WeakSet()


def watch(graph: Refreshable) -> None:
    """Let ``refresh()`` reach a compiled graph."""
    _watched.add(graph)


def refresh() -> None:
    """Pack the weights of every compiled model again at its next call.

    For changes that cannot be seen: ``p.data.copy_()``, ``p.data.mul_()``, writes through numpy.
    Raises ReleasedError, after all others, for models whose weights were released.
    """
    STORE.clear()
    refused = None
    for graph in list(_watched):
        try:
            graph.refresh()
        except ReleasedError as error:
            refused = error
    if refused is not None:
        raise refused


def picker(positions: Sequence[int]) -> Callable[[Any], tuple[Any, ...]]:
    """A fast function from a call's arguments to those at ``positions``."""
    if not positions:
        return lambda _: ()
    if len(positions) == 1:
        first = positions[0]
        return lambda args: (args[first],)
    return operator.itemgetter(*positions)
