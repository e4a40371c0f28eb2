"""Strides of views."""

from __future__ import annotations

from collections.abc import Sequence

from torch_aio.ir.spec import contiguous_stride
from torch_aio.ir.symbols import Int, product


def reshaped(
    shape: Sequence[Int], stride: Sequence[Int], target: Sequence[Int]
) -> tuple[Int, ...] | None:
    """The strides that show memory of ``shape`` and ``stride`` as ``target``; None: needs a copy.

    Runs of dimensions that lie together in memory are merged, then divided as ``target`` asks.
    """
    target = tuple(target)
    if product(tuple(shape)) == 0:
        return contiguous_stride(target)
    runs = _runs(shape, stride)
    result: list[Int] = []
    position = len(target) - 1
    for size, step in reversed(runs):
        covered: Int = 1
        while position >= 0 and (covered != size or target[position] == 1):
            result.append(step * covered)
            covered = covered * target[position]
            position -= 1
        if covered != size:
            return None
    result += [1] * (position + 1)
    return tuple(reversed(result))


def _runs(shape: Sequence[Int], stride: Sequence[Int]) -> list[tuple[Int, Int]]:
    """Maximal runs of adjacent dimensions that lie together: (elements, innermost stride)."""
    runs: list[tuple[Int, Int]] = []
    for size, step in zip(shape, stride, strict=True):
        if size == 1:
            continue
        if runs and runs[-1][1] == size * step:
            runs[-1] = (runs[-1][0] * size, step)
        else:
            runs.append((size, step))
    return runs or [(1, 1)]
