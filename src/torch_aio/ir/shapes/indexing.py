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
    iterate,
    suggests_channels_last,
    wrap,
)
from torch_aio.ir.shapes.promotion import result_type
from torch_aio.ir.shapes.table import Row, rows
from torch_aio.ir.shapes.view import permute
from torch_aio.ir.spec import TensorSpec, contiguous
from torch_aio.ir.symbols import Int


def embedding(weight: TensorSpec, indices: TensorSpec, *_: Any) -> TensorSpec:
    """Rows of ``weight``."""
    return contiguous((*indices.shape, weight.shape[1]), weight.dtype)


def embedding_bag(
    weight: TensorSpec, indices: TensorSpec, offsets: TensorSpec | None = None, *rest: Any
) -> tuple[TensorSpec, ...]:
    """Sums of rows; the three bookkeeping outputs as the CPU kernel leaves them."""
    bags: Int = offsets.shape[0] if offsets is not None else indices.shape[0]
    if len(rest) > 5 and rest[5]:
        bags = bags - 1
    empty = contiguous((0,), indices.dtype)
    return contiguous((bags, weight.shape[1]), weight.dtype), empty, empty, empty


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
    """``gather`` with broadcasting."""
    if dim is None:
        return contiguous(index.shape, x.dtype)
    d = wrap(dim, x.ndim)
    fixed = lambda s: (*s[:d], 1, *s[d + 1 :])  # noqa: E731 - local name reads better
    shape = list(broadcast(fixed(x.shape), fixed(index.shape)))
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
    return iterate(
        [source, *(_placed(i, joined, before, x.ndim - after) for i in given)], x.dtype
    )


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


def stack(tensors: Sequence[TensorSpec], dim: int = 0) -> TensorSpec:
    """Joined along a new dimension."""
    first = tensors[0]
    if any(x.shape != first.shape for x in tensors):
        raise ValueError("stack: sizes differ")
    d = wrap(dim, first.ndim + 1)
    return contiguous(
        (*first.shape[:d], len(tensors), *first.shape[d:]), result_type(*tensors)
    )


def updated(x: TensorSpec, *_: Any, **__: Any) -> TensorSpec:
    """Scatters and fills: a changed clone."""
    return dense_like(x)


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
    *(
        (name, updated)
        for name in (
            "index_put index_copy index_fill.int_Scalar index_add fill copy select_scatter "
            "slice_scatter diagonal_scatter masked_scatter"
        ).split()
    ),
    ("scatter", scattered),
    ("scatter_add", scattered),
    ("scatter_reduce", scattered),
    ("tril", tri),
    ("triu", tri),
    ("one_hot", one_hot),
    ("repeat_interleave.self_int", repeat_interleave),
)
