"""What a front door hands to the engine: one graph and how its calls look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.fx import GraphModule


@dataclass
class Captured:
    """One captured function in the graph form (see ARCHITECTURE.md).

    ``live`` maps a constant's name to the position of the argument that carries its live tensor
    at each call (torch.compile passes parameters as arguments); constants not in it are owned by
    the graph. ``arguments`` are the positions of the arguments that feed the placeholders.
    ``fallback`` takes the same positional arguments and returns the same flat outputs, by PyTorch.
    """

    module: GraphModule
    arguments: tuple[int, ...]
    fallback: Callable[..., Sequence[Any]]
    name: str
    door: str
    live: dict[str, int] = field(default_factory=dict)
