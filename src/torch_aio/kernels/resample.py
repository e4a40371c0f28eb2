"""Resampling in the channel-blocked layout: output pixels are weighted sums of a few input pixels.

Nearest takes one, bilinear two rows and columns, bicubic four. Which and how much is in tables, one
a dimension, so sizes, scales and modes are no business of the code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.types import Value, f32, i32, i64
from torch_aio.kernels.blocked import each_vector
from torch_aio.kernels.spec import KernelSpec

BYTES = 4
TAPS = {"nearest": 1, "exact": 1, "linear": 2, "cubic": 4}
"""Input pixels a dimension that an output pixel sees, by mode."""
CUBIC = -0.75
"""The free coefficient of cubic convolution, PyTorch's choice."""
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TapTable:
    """The taps of every output pixel of one dimension: [outputs][offsets, weights], as int32.

    Offsets are bytes, weights f32. ``scale``: the factor that was asked for, None where it follows
    from the sizes. Formulas of ATen/native/UpSample.h: nearest in f32, as one pixel further is
    another answer; the others in f64, nearer to the exact weights than eager.
    """

    mode: str
    corners: bool = False
    scale: float | None = None

    def __call__(self, inputs: int, outputs: int, step: int) -> npt.NDArray[np.int32]:
        """The table for these sizes, neighbours ``step`` bytes apart."""
        first, weights = self._linear(inputs, outputs)
        taps = TAPS[self.mode]
        places = np.clip(first[:, None] + np.arange(taps), 0, max(inputs - 1, 0))
        offsets = (places * step).astype(np.int32)
        return np.concatenate([offsets, weights.view(np.int32)], axis=1)

    def _linear(self, inputs: int, outputs: int) -> tuple[npt.NDArray[np.int64], Floats]:
        """The first tap of each output pixel, which may lie outside, and the taps' weights."""
        at, step = np.arange(outputs), self._step(inputs, outputs)
        if TAPS[self.mode] == 1:
            middle = np.float32(0.5 if self.mode == "exact" else 0)
            nearest = np.floor((at.astype(np.float32) + middle) * np.float32(step))
            return nearest.astype(np.int64), np.ones((outputs, 1), np.float32)
        place = at * step if self.corners else (at + 0.5) * step - 0.5
        if self.mode == "linear":
            place = np.maximum(place, 0)
        first = np.floor(place)
        rest = (place - first)[:, None]
        distances = [rest, rest - 1] if self.mode == "linear" else [rest + 1 - n for n in range(4)]
        weight = _linear if self.mode == "linear" else _cubic
        weights = np.concatenate([weight(d) for d in distances], axis=1)
        start = first.astype(np.int64) - (self.mode == "cubic")
        return start, weights.astype(np.float32)

    def _step(self, inputs: int, outputs: int) -> float:
        """Input pixels an output pixel."""
        if self.corners:
            return (inputs - 1) / (outputs - 1) if outputs > 1 else 0.0
        if self.scale is not None and self.scale > 0:
            return 1 / self.scale
        return inputs / max(outputs, 1)


def _linear(distance: Doubles) -> Doubles:
    return 1 - np.abs(distance)


def _cubic(distance: Doubles) -> Doubles:
    """The weight of a pixel at a distance (Keys 1981)."""
    x, a = np.abs(distance), CUBIC
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, far)


@dataclass(frozen=True)
class Resample(KernelSpec):
    """y[h, w] = sum over ``taps`` rows and columns of weights times x; all planes blocked.

    ``rows`` and ``columns``: the tables of ``TapTable``. Units: batch * blocks * height.
    """

    params: ClassVar[Params] = Params(
        "x:ptr x_batch:int x_block:int y:ptr y_batch:int y_block:int y_row:int "
        "blocks:int height:int width:int rows:ptr columns:ptr"
    )
    taps: int = 1

    @property
    def name(self) -> str:
        """``resample_f32_2``."""
        return f"resample_f32_{self.taps}"

    def emit(self, k: Builder) -> None:
        """A row of pixels a unit."""
        p, pixel = k.p, k.isa.block * BYTES
        entry = 2 * self.taps * 4
        with k.loop(k.begin, k.end) as unit:
            plane, row = k.udiv(unit.i, p.height), k.urem(unit.i, p.height)
            batch, block = k.udiv(plane, p.blocks), k.urem(plane, p.blocks)
            with each_vector(k) as lane:
                x = k.at(p.x, k.mul(batch, p.x_batch), k.mul(block, p.x_block), k.mul(lane, BYTES))
                y = k.at(p.y, k.mul(batch, p.y_batch), k.mul(block, p.y_block),
                         k.mul(row, p.y_row), k.mul(lane, BYTES))  # fmt: skip
                down = k.at(p.rows, k.mul(row, entry))
                lines = [k.at(x, self._offset(k, down, t)) for t in range(self.taps)]
                across = self._weights(k, down)
                with k.loop(0, p.width) as column:
                    taps = k.at(p.columns, k.mul(column.i, entry))
                    value = self._pixel(k, lines, taps, across)
                    k.store(value, y, k.mul(column.i, pixel))

    def _pixel(self, k: Builder, lines: list[Value], taps: Value, across: list[Value]) -> Value:
        vector = k.isa.vector(f32)
        offsets = [self._offset(k, taps, t) for t in range(self.taps)]
        if self.taps == 1:
            return k.load(vector, lines[0], offsets[0])
        weights = self._weights(k, taps)
        sums = []
        for line in lines:
            values = [k.load(vector, line, offset) for offset in offsets]
            sums.append(_dot(k, values, weights))
        return _dot(k, sums, across)

    def _weights(self, k: Builder, entry: Value) -> list[Value]:
        vector = k.isa.vector(f32)
        return [k.broadcast(vector, entry, (self.taps + t) * 4) for t in range(self.taps)]

    @staticmethod
    def _offset(k: Builder, entry: Value, tap: int) -> Size:
        return k.cast(k.load(i32, entry, tap * 4), i64)


def _dot(k: Builder, values: list[Value], weights: list[Value]) -> Value:
    total = k.fmul(values[0], weights[0])
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total = k.fma(value, weight, total)
    return total
