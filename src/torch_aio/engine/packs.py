"""One store of packed constants for the process: equal recipes on equal weights share one tensor.

A recipe is a pack applied to constant nodes; its key is the text of their sub-graph, the pack, and
for each weight the memory, version, shape and strides it has. Recompiles, variants for other sizes
and parts of one model meet here. Values are weak: a pack lives as long as a compiled graph uses it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

from torch_aio.engine.released import has_storage
from torch_aio.plan.lowering import Constant
from torch_aio.runtime.pages import settled

SAMPLES = 256
Recipe = tuple[str, Any]
"""The text of a constant's sub-graph, and the pack."""


class Pack:
    """A packed tensor, and what it was made from: weak, with a hash of the contents.

    ``recipe`` is what was done, apart from the weights.
    """

    __slots__ = ("__weakref__", "hashes", "recipe", "sources", "tensor")

    def __init__(
        self, tensor: torch.Tensor, recipe: Recipe, sources: Sequence[torch.Tensor]
    ) -> None:
        self.tensor, self.recipe = tensor, recipe
        self.sources = tuple(map(weakref.ref, sources))
        self.hashes = [content_hash(source) for source in sources]

    def is_of(self, sources: Sequence[torch.Tensor]) -> bool:
        """Whether the weights are still what was packed.

        The memory of a dead weight may be another's by now, and a write through ``.data`` or numpy
        has no version: their contents tell. A released weight cannot have changed.
        """
        known = [ref() for ref in self.sources]
        return None not in known and all(
            content_hash(new) == content if has_storage(new) else new is old
            for new, old, content in zip(sources, known, self.hashes, strict=True)
        )

    def is_all_there_is(self) -> bool:
        """Whether a weight of it was released."""
        known = [ref() for ref in self.sources]
        return any(source is not None and not has_storage(source) for source in known)


class PackStore:
    """Weak-valued table of packs; ``made`` counts packs that were computed."""

    def __init__(self) -> None:
        self._packs: weakref.WeakValueDictionary[Any, Pack] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()
        self.made = 0

    def get(
        self,
        recipe: Constant,
        weights: Mapping[str, torch.Tensor],
        compute: Callable[[], torch.Tensor],
    ) -> Pack:
        """The pack of a recipe over ``weights``, computed where none is known."""
        names: dict[str, int] = {}
        text = tuple(_text(node, names) for node in recipe.nodes)
        sources = [weights[name] for name in names]
        what = ", ".join(text), recipe.pack
        key = _key(what, sources)
        with self._lock:
            known = self._packs.get(key)
        if known is not None and known.is_of(sources):
            return known
        made = Pack(_apart(compute(), sources), what, sources)
        with self._lock:
            self.made += 1
            self._packs[key] = made
        return made

    def __len__(self) -> int:
        return len(self._packs)

    def keep(self, packs: Iterable[Pack]) -> None:
        """Find these packs again, some of whose weights were released since they were made."""
        with self._lock:
            for pack in packs:
                sources = [source for ref in pack.sources if (source := ref()) is not None]
                if len(sources) == len(pack.sources):
                    self._packs[_key(pack.recipe, sources)] = pack

    def clear(self) -> None:
        """Share no pack made so far any more, but those that cannot be made again."""
        with self._lock:
            kept = [pack for pack in self._packs.values() if pack.is_all_there_is()]
            self._packs.clear()
        self.keep(kept)


STORE = PackStore()


def content_hash(tensor: torch.Tensor) -> int:
    """A hash of ``SAMPLES`` elements spread over the tensor.

    Hashing all costs 20 ms for 100 MB, and writes that are neither versioned nor announced by
    ``refresh()`` change whole tensors in practice.
    """
    if tensor.is_quantized:
        return 0
    flat = tensor.detach().flatten()
    return hash(tuple(flat[:: max(flat.numel() // SAMPLES, 1)].tolist()))


def _key(recipe: Recipe, sources: Sequence[torch.Tensor]) -> Any:
    return recipe, tuple(map(_identity, sources))


def _apart(value: Any, sources: Sequence[torch.Tensor]) -> Any:
    """The value on huge pages, unless it is no strided tensor or lies in a weight's memory."""
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        return value
    known = {source.untyped_storage().data_ptr() for source in sources}
    return value if value.untyped_storage().data_ptr() in known else settled(value)


def _identity(tensor: torch.Tensor) -> Any:
    if not has_storage(tensor):
        return id(tensor)
    version = -1 if tensor.is_inference() else tensor._version
    return (
        tensor.data_ptr(),
        version,
        tensor.dtype,
        tuple(tensor.shape),
        tuple(tensor.stride()),
    )


def _text(node: Node, names: dict[str, int]) -> str:
    """The sub-graph behind a constant node, with weights numbered in the order of their use."""
    if node.op == "get_attr":
        return f"w{names.setdefault(str(node.target), len(names))}"

    def spell(value: Any) -> str:
        if isinstance(value, Node):
            return _text(value, names)
        if isinstance(value, (list, tuple)):
            return f"[{', '.join(map(spell, value))}]"
        return repr(value)

    named = [f"{key}={spell(value)}" for key, value in sorted(node.kwargs.items())]
    return f"{node.target}({', '.join([*map(spell, node.args), *named])})"
