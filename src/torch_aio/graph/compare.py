"""Comparing specs by structure: no question is asked, so no guard is recorded."""

from __future__ import annotations

from typing import Any

from torch_aio.ir.shapes import layout
from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Expr, Int


def is_same(a: Any, b: Any) -> bool:
    """Whether two specs are equal by structure, without asking a guard."""
    if isinstance(a, TensorSpec) and isinstance(b, TensorSpec):
        return a.dtype == b.dtype and same_sizes(a.shape, b.shape) and same_strides(a, b)
    return type(a) is type(b) and not isinstance(a, TensorSpec) and bool(a == b)


def same_sizes(a: tuple[Int, ...], b: tuple[Int, ...]) -> bool:
    """Whether two lists of sizes are equal by structure, without asking a guard."""
    return len(a) == len(b) and all(same_int(x, y) for x, y in zip(a, b, strict=True))


def same_int(a: Int, b: Int) -> bool:
    """Whether two sizes are equal by structure, without asking a guard."""
    difference = a - b
    return isinstance(difference, int) and difference == 0


def same_strides(a: TensorSpec, b: TensorSpec) -> bool:
    """Whether equal shapes lie in memory alike; strides of sizes 0 and 1 hardly matter."""
    if any(isinstance(size, int) and size == 0 for size in a.shape):
        return True
    if _has_channels_inside(a) != _has_channels_inside(b):
        return False
    return all(
        (isinstance(size, int) and size == 1) or same_int(x, y)
        for size, x, y in zip(a.shape, a.stride, b.stride, strict=True)
    )


def is_symbolic(value: Any) -> bool:
    """Whether a spec depends on symbols."""
    if isinstance(value, TensorSpec):
        return any(isinstance(size, Expr) for size in (*value.shape, *value.stride))
    if isinstance(value, tuple):
        return any(is_symbolic(v) for v in value)
    return isinstance(value, Expr)


def _has_channels_inside(x: TensorSpec) -> bool:
    """Whether eager takes it for channels-last: there strides of size-1 dimensions do matter."""
    return x.ndim in (4, 5) and not is_symbolic(x) and layout.suggests_channels_last(x)
