"""The values of a graph's constant nodes for one state of the weights.

A constant node depends on no input; PyTorch computes its value from the weights when a plan first
asks for it. A pool lives as long as one compile or one packing: computed values would only be a
second copy beside the packed ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Node, map_arg

from torch_aio.compiling import stage
from torch_aio.engine.packs import STORE, Pack
from torch_aio.plan.lowering import Constant


class ConstantPool:
    """Values and packs, given the tensors of the ``get_attr`` nodes (``weights``)."""

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        self.weights = weights
        self._values: dict[Node, Any] = {}
        self._packs: dict[Constant, Pack] = {}

    def value(self, node: Node) -> Any:
        """The value of a constant node."""
        if node not in self._values:
            with torch.no_grad():
                self._values[node] = self._evaluate(node)
        return self._values[node]

    @stage("packing")
    def pack(self, recipe: Constant) -> Pack:
        """The packed tensor of a recipe, shared with whoever packed the same."""
        if recipe not in self._packs:
            self._packs[recipe] = STORE.get(recipe, self.weights, lambda: self._compute(recipe))
        return self._packs[recipe]

    def packed_value(self, recipe: Constant) -> torch.Tensor:
        """The tensor of ``pack``."""
        return self.pack(recipe).tensor

    def _compute(self, recipe: Constant) -> Any:
        tensors = [self.value(node) for node in recipe.nodes]
        for node in set(recipe.nodes):
            del self._values[node]  # a folded weight is as large as the packed one
        if recipe.pack is None:
            return _laid_out(tensors[0], recipe.nodes[0].meta["spec"])
        with torch.no_grad():
            return recipe.pack(*tensors)

    def _evaluate(self, node: Node) -> Any:
        if node.op == "get_attr":
            return self.weights[str(node.target)].detach()
        args = map_arg(node.args, self.value)
        kwargs = map_arg(node.kwargs, self.value)
        return node.target(*args, **kwargs)  # type: ignore[operator]


def _laid_out(value: Any, spec: Any) -> Any:
    """The value with the strides that its readers were compiled for."""
    if not isinstance(value, torch.Tensor) or value.stride() == spec.stride:
        return value
    return torch.empty_strided(spec.shape, spec.stride, dtype=spec.dtype).copy_(value)
