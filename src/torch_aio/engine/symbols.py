"""The values of a graph's symbols, read from a call's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.fx import GraphModule

from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Expr, Int, symbol, symbols_of

_NONE: dict[str, int] = {}


class SymbolReader:
    """Where each symbol of a graph can be read: an integer input, or a dimension of a tensor."""

    def __init__(self, module: GraphModule) -> None:
        wanted: set[str] = set()
        self._sources: dict[str, tuple[int, int | None]] = {}
        placeholders = [n for n in module.graph.nodes if n.op == "placeholder"]
        for position, node in enumerate(placeholders):
            spec = node.meta["spec"]
            if isinstance(spec, TensorSpec):
                for dim, size in enumerate(spec.shape):
                    self._note(size, position, dim)
                for part in (*spec.shape, *spec.stride):
                    wanted |= symbols_of(part)
            elif isinstance(spec, (int, Expr)) and not isinstance(spec, bool):
                self._note(spec, position, None)
                wanted |= symbols_of(spec)
        missing = wanted - set(self._sources)
        if missing:
            raise ValueError(f"no input gives the value of {', '.join(sorted(missing))}")
        self._items = tuple(sorted(self._sources.items()))

    def read(self, inputs: Sequence[Any]) -> dict[str, int]:
        """The value of each symbol, in the order of their names."""
        if not self._items:
            return _NONE
        return {
            name: inputs[position] if dim is None else inputs[position].shape[dim]
            for name, (position, dim) in self._items
        }

    def _note(self, size: Int, position: int, dim: int | None) -> None:
        names = symbols_of(size)
        if len(names) == 1:
            (name,) = names
            known = self._sources.get(name)
            is_it = isinstance(size, Expr) and size.terms == symbol(name).terms
            if is_it and (known is None or (known[1] is not None and dim is None)):
                self._sources[name] = (position, dim)
