"""What a front door hands to the engine: one graph and how its calls look."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import GraphModule

from torch_aio.ir.spec import TensorSpec


@dataclass
class Captured:
    """One captured function in the graph form (see ARCHITECTURE.md).

    ``live`` maps a constant's name to its position in ``carriers``; constants not in it are owned
    by the graph. ``arguments`` are the positions of the arguments that feed the placeholders.
    ``fallback`` takes the same positional arguments and returns the same flat outputs, by PyTorch.
    ``seconds``: what the capture took. ``bound``: live tensors, always the same ones, which no
    argument carries.
    """

    module: GraphModule
    arguments: tuple[int, ...]
    fallback: Callable[..., Sequence[Any]]
    name: str
    door: str
    live: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    bound: Mapping[int, weakref.ref[torch.Tensor]] | None = None

    def carriers(self, args: Sequence[Any]) -> Any:
        """What holds the live tensors of a call, by position: its arguments, or what is bound.

        torch.compile passes parameters as arguments where the graph is not bound to them.
        """
        return args if self.bound is None else {i: ref() for i, ref in self.bound.items()}

    def took(self, spent: Mapping[str, float], compiled: int, loaded: int) -> str:
        """What one compile of it took, by stage, and how many kernels; several share a capture."""
        stages = ", ".join(f"{name} {seconds:.3f}" for name, seconds in spent.items())
        return (
            f"{self.name} ({self.door}): capture {self.seconds:.3f} s; compiled in "
            f"{sum(spent.values()):.3f} s: {stages} ({compiled} compiled, {loaded} from the cache)"
        )


def weight_specs(module: GraphModule) -> dict[str, TensorSpec]:
    """The specs of the graph's constants, by name."""
    return {str(n.target): n.meta["spec"] for n in module.graph.nodes if n.op == "get_attr"}


def misfit_of(name: str, weight: torch.Tensor, spec: TensorSpec) -> str:
    """How a weight differs from its spec, "" where it has its type and layout."""
    if (
        weight.dtype is spec.dtype
        and weight.shape == spec.shape
        and weight.is_cpu
        and weight.layout is torch.strided
        and weight.stride() == spec.stride
    ):
        return ""
    return (
        f"a weight ({name}) is {weight.dtype} {tuple(weight.shape)} with strides {weight.stride()} "
        f"on {weight.device} instead of {spec.dtype} {spec.shape}, {spec.stride}"
    )
