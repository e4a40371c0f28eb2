"""Shapes of lookups, joins and scatters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from torch_aio.ir.shapes.layout import (
    Shape,
    broadcast,
    channels_last,
    dense_like,
    is_empty,
    iterate,
    suggests_channels_last,
    wrap,
)
from torch_aio.ir.shapes.promotion import result_type
from torch_aio.ir.shapes.table import Row, rows
from torch_aio.ir.shapes.view import permute, slice_
from torch_aio.ir.spec import TensorSpec, contiguous
from torch_aio.ir.symbols import Int


def embedding(weight: TensorSpec, indices: TensorSpec, *_: Any) -> TensorSpec:
    """Rows of ``weight``."""
    return contiguous((*indices.shape, weight.shape[1]), weight.dtype)


def embedding_bag(
    weight: TensorSpec, indices: TensorSpec, offsets: TensorSpec | None = None, *rest: Any
) -> tuple[TensorSpec, ...]:
    """Sums of rows; the three bookkeeping outputs as the CPU kernel leaves them."""
    given: Int = offsets.shape[0] if offsets is not None else indices.shape[0]
    mode = rest[1] if len(rest) > 1 else 0
    bags = given - 1 if len(rest) > 4 and rest[4] else given
    out = contiguous((bags, weight.shape[1]), weight.dtype)
    if mode == 0:
        sizes = contiguous((given,), indices.dtype)
        return out, contiguous((0,), indices.dtype), sizes, sizes
    sizes = contiguous((bags,), indices.dtype)
    most = contiguous(out.shape, indices.dtype) if mode == 2 else sizes
    return out, contiguous(indices.shape, indices.dtype), sizes, most


def gather(x: TensorSpec, dim: int, index: TensorSpec, *, sparse_grad: bool = False) -> TensorSpec:
    """The index's shape."""
    return contiguous(index.shape, x.dtype)


def index_select(x: TensorSpec, dim: int, index: TensorSpec) -> TensorSpec:
    """Chosen positions of one dimension."""
    if x.ndim == 0:
        return x
    d = wrap(dim, x.ndim)
    count = index.shape[0] if index.ndim else 1
    return contiguous((*x.shape[:d], count, *x.shape[d + 1 :]), x.dtype)


def take_along_dim(x: TensorSpec, index: TensorSpec, dim: int | None = None) -> TensorSpec:
    """``gather`` with broadcasting; without ``dim`` from and into one row."""
    if dim is None:
        return contiguous((index.numel,), x.dtype)
    d = wrap(dim, x.ndim)
    kept = [(*s[:d], 1, *s[d + 1 :]) for s in (x.shape, index.shape)]
    shape = list(broadcast(*kept))
    shape[d] = index.shape[d]
    return contiguous(tuple(shape), x.dtype)


def index(x: TensorSpec, indices: Sequence[TensorSpec | None]) -> TensorSpec:
    """Advanced indexing by integer tensors (masks give data-dependent shapes: refused)."""
    given = [i for i in indices if i is not None]
    if any(i.dtype in (torch.bool, torch.uint8) for i in given):
        raise NotImplementedError("aten.index.Tensor with a mask has a data-dependent shape")
    places = [d for d, i in enumerate(indices) if i is not None]
    joined = broadcast(*(i.shape for i in given))
    if places != list(range(places[0], places[-1] + 1)):
        x = permute(x, [*places, *(d for d in range(x.ndim) if d not in places)])
        places = list(range(len(places)))
    before, after = places[0], places[-1] + 1
    shape = (*x.shape[:before], *joined, *x.shape[after:])
    stride = (*x.stride[:before], *(0,) * len(joined), *x.stride[after:])
    source = TensorSpec(shape, x.dtype, stride)
    return iterate([source, *(_placed(i, joined, before, x.ndim - after) for i in given)], x.dtype)


def _placed(i: TensorSpec, joined: Shape, before: int, after: int) -> TensorSpec:
    """An index expanded to the joined shape, with ones around it."""
    lead = len(joined) - i.ndim
    stride = (0,) * lead + tuple(
        0 if i.shape[d] == 1 and joined[lead + d] != 1 else i.stride[d] for d in range(i.ndim)
    )
    return TensorSpec(
        (*(1,) * before, *joined, *(1,) * after), i.dtype, (*(0,) * before, *stride, *(0,) * after)
    )


def cat(tensors: Sequence[TensorSpec], dim: int = 0) -> TensorSpec:
    """Joined along a dimension; channels-last where all inputs are."""
    kept = [x for x in tensors if not (x.ndim == 1 and x.shape[0] == 0)] or list(tensors[:1])
    dtype = result_type(*tensors)
    d = wrap(dim, kept[0].ndim)
    total: Int = 0
    for x in kept:
        total = total + x.shape[d]
        for i, (a, b) in enumerate(zip(x.shape, kept[0].shape, strict=True)):
            if i != d and a != b:
                raise ValueError(f"cat: sizes {x.shape} and {kept[0].shape} differ")
    shape = (*kept[0].shape[:d], total, *kept[0].shape[d + 1 :])
    if all(suggests_channels_last(x) for x in tensors):
        return channels_last(shape, dtype)
    return contiguous(shape, dtype)


def roll(x: TensorSpec, shifts: Sequence[int], dims: Sequence[int] = ()) -> TensorSpec:
    """Two pieces joined the other way round, for each dimension."""
    if is_empty(x.shape):
        return dense_like(x)
    if not dims:
        return contiguous(x.shape, x.dtype)
    for shift, dim in zip(shifts, dims, strict=True):
        start = -shift % x.shape[dim]
        x = cat([slice_(x, dim, start), slice_(x, dim, 0, start)], dim)
    return x


def stack(tensors: Sequence[TensorSpec], dim: int = 0) -> TensorSpec:
    """Joined along a new dimension."""
    first = tensors[0]
    if any(x.shape != first.shape for x in tensors):
        raise ValueError("stack: sizes differ")
    d = wrap(dim, first.ndim + 1)
    return contiguous((*first.shape[:d], len(tensors), *first.shape[d:]), result_type(*tensors))


def updated(x: TensorSpec, *_: Any, **__: Any) -> TensorSpec:
    """Scatters and fills: a changed clone."""
    return dense_like(x)


def embedded(x: TensorSpec, *_: Any, **__: Any) -> TensorSpec:
    """``slice_scatter`` ...: a clone that keeps even the gaps of its strides."""
    overlaps = any(step == 0 and n != 1 for n, step in zip(x.shape, x.stride, strict=True))
    return dense_like(x) if overlaps else x


def scattered(x: TensorSpec, *_: Any, **__: Any) -> TensorSpec:
    """``scatter``: the structured kernels allocate row-major."""
    return contiguous(x.shape, x.dtype)


def tri(x: TensorSpec, diagonal: int = 0) -> TensorSpec:
    """``tril``, ``triu``."""
    return contiguous(x.shape, x.dtype)


def one_hot(x: TensorSpec, classes: int = -1) -> TensorSpec:
    """``one_hot`` with a stated number of classes."""
    if classes < 0:
        raise NotImplementedError("aten.one_hot without num_classes has a data-dependent shape")
    return contiguous((*x.shape, classes), torch.int64)


def repeat_interleave(x: TensorSpec, repeats: Int, dim: int | None = None, **_: Any) -> TensorSpec:
    """``repeat_interleave.self_int``."""
    if dim is None:
        return contiguous((x.numel * repeats,), x.dtype)
    d = wrap(dim, x.ndim)
    return contiguous((*x.shape[:d], x.shape[d] * repeats, *x.shape[d + 1 :]), x.dtype)


ROWS: tuple[Row, ...] = rows(
    ("embedding", embedding),
    ("embedding_bag", embedding_bag),
    ("gather", gather),
    ("index_select", index_select),
    ("take_along_dim", take_along_dim),
    ("index.Tensor", index),
    ("cat", cat),
    ("concat", cat),
    ("concatenate", cat),
    ("stack", stack),
    ("roll", roll),
    *(
        (name, updated)
        for name in ("index_put index_fill.int_Scalar fill copy masked_scatter").split()
    ),
    ("index_copy", scattered),
    ("index_add", scattered),
    *((f"{name}_scatter", embedded) for name in ("select", "slice", "diagonal")),
    ("scatter", scattered),
    ("scatter_add", scattered),
    ("scatter_reduce", scattered),
    ("tril", tri),
    ("triu", tri),
    ("one_hot", one_hot),
    ("repeat_interleave.self_int", repeat_interleave),
)
