"""Which weights changed since they were packed.

Seen: another tensor in the argument's place (identity), an in-place change (``_version``), another
memory (``data_ptr``). Not to be seen: ``p.data.copy_()`` and writes through numpy (``refresh()``).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch

_pointer = operator.methodcaller("data_ptr")
_version = operator.attrgetter("_version")


class WeightCheck:
    """Compares live tensors, given in the order of ``names``, with those last packed."""

    def __init__(self, names: Sequence[str], tensors: Sequence[torch.Tensor]) -> None:
        self.names = tuple(names)
        self.remember(tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def remember(self, tensors: Sequence[torch.Tensor]) -> None:
        """Take these tensors, as they are now, for the packed ones."""
        self._tensors = tuple(tensors)
        self._tracked = tuple(t for t in tensors if not t.is_inference())
        self._versions = list(map(_version, self._tracked))
        self._pointers = list(map(_pointer, tensors))

    def unchanged(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether every tensor is the packed one, unmodified as far as can be seen."""
        return (
            all(map(operator.is_, tensors, self._tensors))
            and list(map(_version, self._tracked)) == self._versions
            and list(map(_pointer, tensors)) == self._pointers
        )

    def changed(self, tensors: Sequence[torch.Tensor]) -> list[str]:
        """The names of the weights that are not the packed ones any more."""
        versions = dict(zip(map(id, self._tracked), self._versions, strict=True))
        return [
            name
            for name, now, then, pointer in zip(
                self.names, tensors, self._tensors, self._pointers, strict=True
            )
            if now is not then
            or now.data_ptr() != pointer
            or (id(now) in versions and now._version != versions[id(now)])  # noqa: SLF001 - torch's own counter, without a public name
        ]


def picker(positions: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """A fast function from a call's arguments to those at ``positions``."""
    if not positions:
        return lambda _: ()
    if len(positions) == 1:
        first = positions[0]
        return lambda args: (args[first],)
    return operator.itemgetter(*positions)
