"""Shapes of tensors made from numbers, and sizes asked of tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from torch_aio.ir.shapes.layout import formatted
from torch_aio.ir.shapes.promotion import scalar_type
from torch_aio.ir.shapes.table import Row, rows
from torch_aio.ir.spec import TensorSpec, contiguous
from torch_aio.ir.symbols import Expr, Int


def zeros(size: Sequence[Int], *, dtype: Any = None, **_: Any) -> TensorSpec:
    """``zeros``, ``ones``, ``empty``, ``rand``: the default float."""
    return contiguous(tuple(size), dtype or torch.get_default_dtype())


def full(size: Sequence[Int], value: Any, *, dtype: Any = None, **_: Any) -> TensorSpec:
    """The value's dtype."""
    return contiguous(tuple(size), dtype or scalar_type(value))


def like(
    x: TensorSpec, *_: Any, dtype: Any = None, memory_format: Any = None, **__: Any
) -> TensorSpec:
    """``zeros_like``, ``full_like``, ``empty_like`` ..."""
    return formatted(x, memory_format, dtype)


def new(x: TensorSpec, size: Sequence[Int], *_: Any, dtype: Any = None, **__: Any) -> TensorSpec:
    """``new_zeros``, ``new_full`` ..."""
    return contiguous(tuple(size), dtype or x.dtype)


def arange(end: Any, *, dtype: Any = None, **_: Any) -> TensorSpec:
    """``arange(end)``."""
    return arange_step(0, end, 1, dtype=dtype)


def arange_start(start: Any, end: Any, *, dtype: Any = None, **_: Any) -> TensorSpec:
    """``arange(start, end)``."""
    return arange_step(start, end, 1, dtype=dtype)


def arange_step(start: Any, end: Any, step: Any = 1, *, dtype: Any = None, **_: Any) -> TensorSpec:
    """``arange(start, end, step)``: int64 from integers."""
    whole = all(isinstance(v, (int, Expr)) for v in (start, end, step))
    count: Int
    if whole:
        count = -((start - end) // step) if step != 1 else end - start
    else:
        count = math.ceil((end - start) / step)
    kind = torch.int64 if whole else torch.get_default_dtype()
    return contiguous((count if count >= 0 else 0,), dtype or kind)


def linspace(start: Any, end: Any, steps: Int, *, dtype: Any = None, **_: Any) -> TensorSpec:
    """Evenly spaced numbers."""
    return contiguous((steps,), dtype or torch.get_default_dtype())


def scalar_tensor(value: Any, *, dtype: Any = None, **_: Any) -> TensorSpec:
    """``scalar_tensor``: the default float unless told."""
    return contiguous((), dtype or torch.get_default_dtype())


def randint(high: int, size: Sequence[Int], *, dtype: Any = None, **_: Any) -> TensorSpec:
    """``randint``."""
    return contiguous(tuple(size), dtype or torch.int64)


def randint_low(
    low: int, high: int, size: Sequence[Int], *, dtype: Any = None, **_: Any
) -> TensorSpec:
    """``randint.low``."""
    return contiguous(tuple(size), dtype or torch.int64)


def eye(n: Int, *, dtype: Any = None, **_: Any) -> TensorSpec:
    """The unit matrix."""
    return contiguous((n, n), dtype or torch.get_default_dtype())


def eye_m(n: Int, m: Int, *, dtype: Any = None, **_: Any) -> TensorSpec:
    """A part of the unit matrix."""
    return contiguous((n, m), dtype or torch.get_default_dtype())


def empty_strided(
    size: Sequence[Int], stride: Sequence[Int], *, dtype: Any = None, **_: Any
) -> TensorSpec:
    """Exactly these strides."""
    return TensorSpec(tuple(size), dtype or torch.get_default_dtype(), tuple(stride))


def sym_size(x: TensorSpec, dim: int) -> Int:
    """One size."""
    return x.shape[dim]


def sym_stride(x: TensorSpec, dim: int) -> Int:
    """One stride."""
    return x.stride[dim]


def sym_numel(x: TensorSpec) -> Int:
    """The number of elements."""
    return x.numel


ROWS: tuple[Row, ...] = rows(
    *((name, zeros) for name in ("zeros", "ones", "empty.memory_format", "rand", "randn")),
    ("full", full),
    *((f"{name}_like", like) for name in "zeros ones empty full rand randn".split()),
    *((f"new_{name}", new) for name in "zeros ones empty full".split()),
    ("arange", arange),
    ("arange.start", arange_start),
    ("arange.start_step", arange_step),
    ("linspace", linspace),
    ("scalar_tensor", scalar_tensor),
    ("randint", randint),
    ("randint.low", randint_low),
    ("eye", eye),
    ("eye.m", eye_m),
    ("empty_strided", empty_strided),
    ("sym_size.int", sym_size),
    ("sym_stride.int", sym_stride),
    ("sym_numel", sym_numel),
)
