"""Convolutions of any kind as plain ones: the outputs of a transposed one of stride s in s phases.

Along one dimension a phase is every ``step``-th output pixel from ``first`` on; its pixel q is a
sum over ``taps`` of the kernel, the first at input pixel ``start + q * advance``, each ``apart``
pixels after the one before.

    convolution of stride s, dilation d, padding p:  one phase, advance s, apart d, start -p
    transposed: y[o] = sum over k of w[k] x[(o + p - k d) / s] where s divides: phases o mod s, in
    each every (s / gcd(s, d))-th k, advance 1, apart d / gcd(s, d)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product as combinations
from typing import Any

from torch.fx import Node

from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Int, ceil_div, maximum
from torch_aio.plan.families.windows import argument


@dataclass(frozen=True)
class Phase:
    """A phase of one dimension; ``taps``: positions in the kernel, by growing input pixel."""

    first: int
    step: int
    taps: tuple[int, ...]
    start: int
    advance: int
    apart: int

    def outputs(self, size: Int) -> Int:
        """Output pixels of the phase among ``size``."""
        return maximum(ceil_div(size - self.first, self.step), 0) if self.step > 1 else size

    @property
    def before(self) -> int:
        """Pixels before the input's first that it reads."""
        return max(-self.start, 0) if self.taps else 0


@dataclass(frozen=True)
class Window:
    """Kernel, stride, padding (both sides), dilation, output padding of one dimension."""

    kernel: int
    stride: int
    padding: tuple[int, int]
    dilation: int
    extra: int = 0

    @property
    def direct(self) -> list[Phase]:
        """The phase of a convolution."""
        taps = tuple(range(self.kernel))
        return [Phase(0, 1, taps, -self.padding[0], self.stride, self.dilation)]

    @property
    def transposed(self) -> list[Phase]:
        """The phases of a transposed convolution."""
        return [self._phase(first) for first in range(self.stride)]

    def _phase(self, first: int) -> Phase:
        s, d, shift = self.stride, self.dilation, first + self.padding[0]
        taps = [k for k in range(self.kernel - 1, -1, -1) if (shift - k * d) % s == 0]
        start = (shift - taps[0] * d) // s if taps else 0
        return Phase(first, s, tuple(taps), start, 1, d // math.gcd(s, d))

    @property
    def reach(self) -> tuple[int, int]:
        """Zeros that a transposed convolution reads before and after the input."""
        span = self.dilation * (self.kernel - 1) - self.padding[0]
        return max(-(-span // self.stride), 0), max((span + self.extra) // self.stride, 0)


@dataclass(frozen=True)
class Phased:
    """A convolution of three dimensions (missing ones are of one pixel) by its phases."""

    windows: tuple[Window, Window, Window]
    is_transposed: bool
    inputs: int
    outputs: int
    groups: int

    @staticmethod
    def of(node: Node) -> Phased:
        """The convolution that ``convolution`` (transposed) or ``conv3d`` computes."""
        weight = node.args[1]
        assert isinstance(weight, Node)
        spec: TensorSpec = weight.meta["spec"]
        first, second, *kernel = (int(size) for size in spec.shape)  # type: ignore[arg-type]
        is_transposed = "convolution" in str(node.target)
        groups = int(argument(node, 8 if is_transposed else 6, "groups", 1))
        stride, padding, dilation = (
            _spread(argument(node, position, name, default), len(kernel))
            for position, name, default in (
                (3, "stride", 1), (4, "padding", 0), (5, "dilation", 1)
            )
        )  # fmt: skip
        extra = _spread(node.args[7] if is_transposed else 0, len(kernel))
        windows = [
            Window(k, s, _sides(p, k, d), d, e)
            for k, s, p, d, e in zip(kernel, stride, padding, dilation, extra, strict=True)
        ]
        windows = [Window(1, 1, (0, 0), 1)] * (3 - len(kernel)) + windows
        inputs, outputs = (first, second * groups) if is_transposed else (second * groups, first)
        return Phased(tuple(windows), is_transposed, inputs, outputs, groups)  # type: ignore[arg-type]

    @property
    def phases(self) -> list[tuple[Phase, Phase, Phase]]:
        """All combinations of the dimensions' phases."""
        depth, rows, columns = (
            w.transposed if self.is_transposed else w.direct for w in self.windows
        )
        return list(combinations(depth, rows, columns))

    @property
    def halo(self) -> tuple[int, int, int]:
        """Zeros around the input that are read, the same on both sides."""
        if self.is_transposed:
            sides = [max(window.reach) for window in self.windows]
        else:
            sides = [max(window.padding) for window in self.windows]
        return sides[0], sides[1], sides[2]

    @property
    def multiply_adds(self) -> int:
        """Of a pixel: of the input where transposed, of the output otherwise."""
        taps = math.prod(window.kernel for window in self.windows)
        return taps * self.inputs * self.outputs // self.groups


def _spread(value: Any, rank: int) -> tuple[Any, ...]:
    values = (value,) if isinstance(value, (int, str)) else tuple(value)
    return values * rank if len(values) == 1 else values


def _sides(padding: int | str, kernel: int, dilation: int) -> tuple[int, int]:
    if isinstance(padding, int):
        return padding, padding
    reach = dilation * (kernel - 1) if padding == "same" else 0
    return reach // 2, -(-reach // 2)
