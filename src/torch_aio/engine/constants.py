"""Constants of one graph: evaluated once, and again where a weight changes.

A constant node depends on no input. Its value is computed by PyTorch from the weights when first
asked for. Each packed constant knows the weights it comes from, so that a changed weight costs only
its own recipes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.fx import Node, map_arg

from torch_aio.plan.lowering import Constant


class ConstantPool:
    """The values of constant nodes, given the tensors of the ``get_attr`` nodes (``weights``)."""

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        self.weights = dict(weights)
        self._values: dict[Node, Any] = {}
        self._sources: dict[Node, frozenset[str]] = {}

    def value(self, node: Node) -> Any:
        """The value of a constant node."""
        if node not in self._values:
            with torch.no_grad():
                self._values[node] = self._evaluate(node)
        return self._values[node]

    def sources(self, node: Node) -> frozenset[str]:
        """The names of the weights that a constant node depends on."""
        if node not in self._sources:
            if node.op == "get_attr":
                found = frozenset({str(node.target)})
            else:
                found = frozenset[str]().union(*(self.sources(n) for n in node.all_input_nodes))
            self._sources[node] = found
        return self._sources[node]

    def update(self, weights: Mapping[str, torch.Tensor], changed: Iterable[str]) -> ConstantPool:
        """A pool for new weights that keeps the values which ``changed`` does not touch."""
        pool = ConstantPool(weights)
        stale = set(changed)
        pool._sources = self._sources
        pool._values = {
            n: v for n, v in self._values.items() if n.op != "get_attr" and not self.sources(n) & stale
        }
        return pool

    def forget(self) -> None:
        """Give back computed values: once packed, they would only be a second copy."""
        self._values = {n: v for n, v in self._values.items() if n.op == "get_attr"}

    def pack(self, constant: Constant) -> torch.Tensor:
        """The packed tensor of a recipe."""
        tensors = [self.value(node) for node in constant.nodes]
        with torch.no_grad():
            return constant.pack(*tensors) if constant.pack else tensors[0]

    def depends(self, constant: Constant, changed: Iterable[str]) -> bool:
        """Whether a recipe uses one of the changed weights."""
        stale = set(changed)
        return any(self.sources(node) & stale for node in constant.nodes)

    def _evaluate(self, node: Node) -> Any:
        if node.op == "get_attr":
            return self.weights[str(node.target)].detach()
        args = map_arg(node.args, self.value)
        kwargs = map_arg(node.kwargs, self.value)
        return node.target(*args, **kwargs)  # type: ignore[operator]
