"""Weights as they were when they were packed, and whether they still are.

Seen: another tensor in the argument's place (identity), an in-place change (``_version``), another
memory (``data_ptr``). Not to be seen: ``p.data.copy_()`` and writes through numpy (``refresh()``).
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from torch_aio.engine.packs import STORE
from torch_aio.engine.released import has_storage, release
from torch_aio.errors import ReleasedError

_pointer = operator.methodcaller("data_ptr")
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
        packs = self.packs
        self._refs = tuple(weakref.ref(tensor, lambda _: packs.clear()) for tensor in tensors)
        self._tracked = tuple(i for i, t in enumerate(tensors) if not t.is_inference())
        self._pick = picker(self._tracked)
        self._versions = self._versions_of(tensors)
        self.released = bool(tensors) and not any(map(has_storage, tensors))
        self._where = _pointer if all(map(has_storage, tensors)) else _address
        self._pointers = list(map(self._where, tensors))

    def unmodified(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether these tensors, known to be the same ones, are as they were."""
        if self.released:
            return not any(map(has_storage, tensors))
        return (
            self._versions_of(tensors) == self._versions
            and list(map(self._where, tensors)) == self._pointers
        )

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

    def _versions_of(self, tensors: Sequence[torch.Tensor]) -> list[int]:
        if len(self._tracked) != len(tensors):
            tensors = self._pick(tensors)
        return list(map(_version, tensors))


def _address(tensor: torch.Tensor) -> int:
    return tensor.data_ptr() if has_storage(tensor) else 0


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


def picker(positions: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """A fast function from a call's arguments to those at ``positions``."""
    if not positions:
        return lambda _: ()
    if len(positions) == 1:
        first = positions[0]
        return lambda args: (args[first],)
    return operator.itemgetter(*positions)
