"""The index space of elementwise steps: dimensions merged as far as every operand allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_aio.ir.symbols import Int, ceil_div, product
from torch_aio.plan.value import Value

GRAIN = 16384
"""Elements a work unit: 64 KiB of f32 a stream, a few microseconds (a barrier takes 0.4)."""


@dataclass(frozen=True)
class IndexSpace:
    """Sizes (at least one dimension), and the byte strides of each operand."""

    sizes: tuple[Int, ...]
    strides: tuple[tuple[Int, ...], ...]

    @property
    def tile(self) -> tuple[Int, Int]:
        """Rows and columns of a work unit."""
        inner = self.sizes[-1]
        if isinstance(inner, int):
            return max(GRAIN // max(inner, 1), 1), max(min(inner, GRAIN), 1)
        return 8, GRAIN // 8

    @property
    def units(self) -> Int:
        """Work units of the step."""
        rows, columns = self.tile
        across = ceil_div(self.sizes[-1], columns)
        if len(self.sizes) == 1:
            return across
        return product(self.sizes[:-2]) * ceil_div(self.sizes[-2], rows) * across


def collapse(
    sizes: Sequence[Int], strides: Sequence[Sequence[Int]], *, keep_last: bool = False
) -> IndexSpace:
    """Drop dimensions of size 1 and merge neighbours that lie together for every operand.

    ``keep_last`` keeps the innermost dimension as it is.
    """
    kept: list[tuple[Int, tuple[Int, ...]]] = []
    last = len(sizes) - 1
    for d, size in enumerate(sizes):
        steps = tuple(operand[d] for operand in strides)
        locked = keep_last and d == last
        if size == 1 and not locked:
            continue
        if kept and not locked:
            outer, before = kept[-1]
            if all(b == size * s for b, s in zip(before, steps, strict=True)):
                kept[-1] = (outer * size, steps)
                continue
        kept.append((size, steps))
    if not kept:
        kept.append((1, tuple(0 for _ in strides)))
    return IndexSpace(
        tuple(size for size, _ in kept),
        tuple(tuple(steps[i] for _, steps in kept) for i in range(len(strides))),
    )


def plain_space(output: Value, inputs: Sequence[Value]) -> IndexSpace:
    """The space of plain operands of one shape; the innermost dimension is the output's densest."""
    order = sorted(
        range(len(output.shape)),
        key=lambda d: -output.stride[d] if isinstance(output.stride[d], int) else 0,
    )
    if any(not isinstance(s, int) for s in output.stride):
        order = list(range(len(output.shape)))
    operands = [output, *inputs]
    return collapse(
        [output.shape[d] for d in order],
        [[value.byte_stride[d] for d in order] for value in operands],
    )


def blocked_space(output: Value, inputs: Sequence[Value]) -> IndexSpace:
    """The space of a blocked output [N, C/c, H, W, c]; operands: blocked, per channel or scalar."""
    n, channels, *plane = output.shape
    height, width = plane if len(plane) == 2 else (1, plane[0])
    sizes = (n, ceil_div(channels, output.block), height, width, output.block)
    strides = [_blocked_strides(output, output.shape)]
    strides += [_blocked_strides(value, output.shape) for value in inputs]
    return collapse(sizes, strides)


def _blocked_strides(value: Value, shape: tuple[Int, ...]) -> tuple[Int, ...]:
    if not value.block:
        return (0, 0, 0, 0, 0)
    batch, block, row, pixel = value.byte_stride
    have = value.shape[2:] if len(value.shape) == 4 else (1, *value.shape[2:])
    want = shape[2:] if len(shape) == 4 else (1, *shape[2:])
    return (
        0 if value.shape[0] == 1 and shape[0] != 1 else batch,
        0 if value.shape[1] == 1 and shape[1] != 1 else block,
        0 if have[0] == 1 and want[0] != 1 else row,
        0 if have[1] == 1 and want[1] != 1 else pixel,
        value.itemsize,
    )
