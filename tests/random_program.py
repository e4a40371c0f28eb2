"""Programs of tensor operators as text, with the inputs and parameters they run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FLOAT, LONG, INT, BOOL = torch.float32, torch.int64, torch.int32, torch.bool
SPECIAL = (float("nan"), float("inf"), float("-inf"), -0.0, 1e-40)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Input:
    """A tensor to be made: ``limit`` n gives integers in [-n, n) or, ``from_zero``, [0, n)."""

    shape: Shape
    dtype: torch.dtype
    layout: str = "contiguous"
    special: bool = False
    seed: int = 0
    limit: int = 9
    from_zero: bool = False

    def make(self) -> Tensor:
        """The tensor; the same at every call."""
        generator = torch.Generator().manual_seed(self.seed)
        return LAYOUTS[self.layout](self._values(generator))

    def _values(self, generator: torch.Generator) -> Tensor:
        if self.dtype == BOOL:
            return torch.rand(self.shape, generator=generator) < 0.5
        if self.dtype != FLOAT:
            low = 0 if self.from_zero else -self.limit
            return torch.randint(low, self.limit, self.shape, generator=generator, dtype=self.dtype)
        x = torch.randn(self.shape, generator=generator)
        if self.special and x.numel():
            count = min(3, x.numel())
            places = torch.randint(0, x.numel(), (count,), generator=generator)
            kinds = torch.randint(0, len(SPECIAL), (count,), generator=generator)
            x.view(-1)[places] = torch.tensor(SPECIAL)[kinds]
        return x


def _transposed(x: Tensor) -> Tensor:
    order = tuple(range(x.ndim))[::-1]
    return x.permute(order).contiguous().permute(order)


def _stepped(x: Tensor) -> Tensor:
    return torch.stack([x, x], -1)[..., 0]


def _offset(x: Tensor) -> Tensor:
    return torch.cat([x[:1], x])[min(1, len(x)) :] if x.ndim else torch.stack([x, x])[1]


def _expanded(x: Tensor) -> Tensor:
    return x[:1].expand(x.shape) if x.ndim and len(x) else x


def _channels_last(x: Tensor) -> Tensor:
    return x.movedim(1, -1).contiguous().movedim(-1, 1) if x.ndim > 2 else x


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "transposed": _transposed,
    "stepped": _stepped,
    "offset": _offset,
    "expanded": _expanded,
    "channels_last": _channels_last,
}
"""Memory of a contiguous tensor arranged in other ways (``expanded`` repeats its first row)."""


@dataclass(frozen=True)
class Program:
    """Lines over inputs ``x0..`` and parameters ``self.p0..``; the last values are returned."""

    inputs: tuple[Input, ...]
    parameters: tuple[Input, ...]
    lines: tuple[str, ...]
    outputs: tuple[str, ...]

    def __str__(self) -> str:
        given = [f"# x{i}: {x}" for i, x in enumerate(self.inputs)]
        owned = [f"# p{i}: {p}" for i, p in enumerate(self.parameters)]
        return "\n".join([*given, *owned, self.source])

    __repr__ = __str__

    @property
    def source(self) -> str:
        """The forward method."""
        names = "".join(f", x{i}" for i in range(len(self.inputs)))
        result = f"return {', '.join(self.outputs)}"
        return "\n    ".join([f"def forward(self{names}):", *self.lines, result])

    def module(self, dtype: torch.dtype = FLOAT) -> nn.Module:
        """The program as a module that computes in ``dtype``."""
        scope: dict[str, Any] = {"torch": torch, "F": F, "f32": dtype}
        exec(self.source, scope)
        module = type("Random", (nn.Module,), {"forward": scope["forward"]})()
        for i, parameter in enumerate(self.parameters):
            module.register_buffer(f"p{i}", parameter.make().to(dtype))
        return module.eval()

    def arguments(self) -> tuple[Tensor, ...]:
        """Fresh inputs of a call."""
        return tuple(x.make() for x in self.inputs)

    def reference(self) -> Any:
        """The answer of the program in fp64."""
        wide = [x.double() if x.is_floating_point() else x for x in self.arguments()]
        module = self.module(torch.float64)  # outside: the default dtype changes random numbers
        with default_dtype(torch.float64), torch.no_grad():
            return module(*wide)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """What integers promote to, inside."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
