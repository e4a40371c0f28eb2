"""Shapes of pieces, windows, copies and tilings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from torch_aio.ir.shapes.layout import dense_like, formatted, is_contiguous, wrap
from torch_aio.ir.shapes.table import Row, rows
from torch_aio.ir.shapes.view import select, slice_
from torch_aio.ir.spec import TensorSpec, contiguous
from torch_aio.ir.symbols import Int


def split(x: TensorSpec, split_size: Int, dim: int = 0) -> tuple[TensorSpec, ...]:
    """Pieces of ``split_size``, the last one shorter."""
    d = wrap(dim, x.ndim)
    size = _number(x.shape[d], "split")
    step = _number(split_size, "split")
    if step == 0:
        return (x,)
    starts = range(0, max(size, 1), step)
    return tuple(slice_(x, d, s, min(s + step, size)) for s in starts)


def split_sizes(x: TensorSpec, sizes: Sequence[Int], dim: int = 0) -> tuple[TensorSpec, ...]:
    """``split_with_sizes``."""
    d = wrap(dim, x.ndim)
    return tuple(
        TensorSpec((*x.shape[:d], size, *x.shape[d + 1 :]), x.dtype, x.stride) for size in sizes
    )


def chunk(x: TensorSpec, chunks: int, dim: int = 0) -> tuple[TensorSpec, ...]:
    """At most ``chunks`` equal pieces."""
    size = x.shape[wrap(dim, x.ndim)]
    if size == 0:
        return (x,) * chunks
    return split(x, (size + chunks - 1) // chunks, dim)


def unbind(x: TensorSpec, dim: int = 0) -> tuple[TensorSpec, ...]:
    """Every position of a dimension."""
    count = _number(x.shape[wrap(dim, x.ndim)], "unbind")
    return (select(x, dim, 0),) * count


def _number(size: Int, op: str) -> int:
    if not isinstance(size, int):
        raise NotImplementedError(f"{op} of a symbolic size {size}")
    return size


def clone(x: TensorSpec, *, memory_format: Any = None) -> TensorSpec:
    """A fresh copy."""
    return formatted(x, memory_format)


def make_contiguous(x: TensorSpec, *, memory_format: Any = torch.contiguous_format) -> TensorSpec:
    """``contiguous``: itself where it is already."""
    if memory_format == torch.contiguous_format:
        return x if is_contiguous(x) else contiguous(x.shape, x.dtype)
    made = formatted(x, memory_format)
    same = all(a == b for n, a, b in zip(x.shape, x.stride, made.stride, strict=True) if n != 1)
    return x if same else made


def unfold(x: TensorSpec, dimension: int, size: int, step: int) -> TensorSpec:
    """Sliding windows, as a view."""
    d = wrap(dimension, x.ndim)
    count = (x.shape[d] - size) // step + 1
    return TensorSpec(
        (*x.shape[:d], count, *x.shape[d + 1 :], size),
        x.dtype,
        (*x.stride[:d], x.stride[d] * step, *x.stride[d + 1 :], x.stride[d]),
    )


def repeat(x: TensorSpec, repeats: Sequence[int]) -> TensorSpec:
    """Tiles, contiguous."""
    shape = (1,) * (len(repeats) - x.ndim) + x.shape
    return contiguous(tuple(s * r for s, r in zip(shape, repeats, strict=True)), x.dtype)


def rearranged(x: TensorSpec, *_: Any, **__: Any) -> TensorSpec:
    """``flip``: a copy in the input's layout."""
    return dense_like(x)


def pixel_shuffle(x: TensorSpec, factor: int) -> TensorSpec:
    """Channels become pixels."""
    *lead, c, h, w = x.shape
    return contiguous((*lead, c // (factor * factor), h * factor, w * factor), x.dtype)


ROWS: tuple[Row, ...] = rows(
    ("split.Tensor", split),
    ("split.sizes", split_sizes),
    ("split_with_sizes", split_sizes),
    ("unsafe_split.Tensor", split),
    ("chunk", chunk),
    ("unsafe_chunk", chunk),
    ("unbind", unbind),
    ("clone", clone),
    ("contiguous", make_contiguous),
    ("unfold", unfold),
    ("repeat", repeat),
    ("flip", rearranged),
    ("pixel_shuffle", pixel_shuffle),
)
