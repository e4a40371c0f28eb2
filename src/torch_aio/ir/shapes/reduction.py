"""Shapes of reductions, softmax, norms, scans and sorts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from torch_aio.ir.shapes.layout import (
    Shape,
    channels_last,
    dense_like,
    formatted,
    is_channels_last_contiguous,
    is_contiguous,
    like_format,
    suggests_channels_last,
    wrap,
)
from torch_aio.ir.shapes.promotion import sum_type
from torch_aio.ir.shapes.table import Row, rows
from torch_aio.ir.spec import TensorSpec, contiguous
from torch_aio.ir.symbols import Int

Dims = int | Sequence[int] | None


def reduced(x: TensorSpec, dim: Dims, keepdim: bool) -> Shape:
    """The shape left after reducing ``dim`` (None or empty: all dimensions)."""
    listed = [dim] if isinstance(dim, int) else list(dim or range(x.ndim))
    gone = {wrap(d, x.ndim) for d in listed}
    if keepdim:
        return tuple(1 if d in gone else size for d, size in enumerate(x.shape))
    return tuple(size for d, size in enumerate(x.shape) if d not in gone)


def sum_all(x: TensorSpec, *, dtype: Any = None) -> TensorSpec:
    """``sum`` and ``prod`` of everything."""
    return contiguous((), dtype or sum_type(x.dtype))


def sum_dim(x: TensorSpec, dim: Dims, keepdim: bool = False, *, dtype: Any = None) -> TensorSpec:
    """Integers widen to int64."""
    return contiguous(reduced(x, dim, keepdim), dtype or sum_type(x.dtype))


def mean_all(x: TensorSpec, *, dtype: Any = None) -> TensorSpec:
    """Mean of everything."""
    return contiguous((), dtype or x.dtype)


def mean_dim(x: TensorSpec, dim: Dims, keepdim: bool = False, *, dtype: Any = None) -> TensorSpec:
    """Mean over dimensions."""
    return contiguous(reduced(x, dim, keepdim), dtype or x.dtype)


def same_all(x: TensorSpec, *_: Any, **__: Any) -> TensorSpec:
    """``max``, ``min``, ``std`` of everything."""
    return contiguous((), x.dtype)


def amax(x: TensorSpec, dim: Dims = (), keepdim: bool = False) -> TensorSpec:
    """``amax``, ``amin``, ``logsumexp``."""
    return contiguous(reduced(x, dim, keepdim), x.dtype)


def with_index(
    x: TensorSpec, dim: int = -1, keepdim: bool = False
) -> tuple[TensorSpec, TensorSpec]:
    """``max.dim`` and friends: values and int64 positions."""
    shape = reduced(x, dim, keepdim)
    return contiguous(shape, x.dtype), contiguous(shape, torch.int64)


def arg(x: TensorSpec, dim: int | None = None, keepdim: bool = False) -> TensorSpec:
    """``argmax``, ``argmin``."""
    return contiguous(reduced(x, dim, keepdim), torch.int64)


def any_all(x: TensorSpec) -> TensorSpec:
    """``any`` and ``all`` of everything (uint8 stays uint8)."""
    return contiguous((), torch.uint8 if x.dtype is torch.uint8 else torch.bool)


def any_dim(x: TensorSpec, dim: Dims = None, keepdim: bool = False) -> TensorSpec:
    """``any`` and ``all`` over dimensions."""
    return contiguous(reduced(x, dim, keepdim), any_all(x).dtype)


def var(x: TensorSpec, unbiased: bool = True) -> TensorSpec:
    """``var`` and ``std`` of everything."""
    return contiguous((), x.dtype)


def var_dim(x: TensorSpec, dim: Dims, unbiased: bool = True, keepdim: bool = False) -> TensorSpec:
    """``var.dim``, ``std.dim``."""
    return contiguous(reduced(x, dim, keepdim), x.dtype)


def var_correction(
    x: TensorSpec, dim: Dims = None, *, correction: Any = None, keepdim: bool = False
) -> TensorSpec:
    """``var.correction``, ``std.correction``."""
    return contiguous(reduced(x, dim, keepdim), x.dtype)


def var_mean(x: TensorSpec, *args: Any, **kwargs: Any) -> tuple[TensorSpec, TensorSpec]:
    """Both moments, the same shape."""
    both = var_correction(x, *args, **kwargs)
    return both, both


def norm(
    x: TensorSpec, p: Any = 2, dim: Dims = None, keepdim: bool = False, **_: Any
) -> TensorSpec:
    """``norm.ScalarOpt_dim``, ``linalg_vector_norm``."""
    return contiguous(reduced(x, dim, keepdim), x.dtype)


def softmax(x: TensorSpec, dim: int, dtype: Any = None) -> TensorSpec:
    """Always contiguous."""
    wrap(dim, x.ndim)
    return contiguous(x.shape, dtype or x.dtype)


def _softmax(x: TensorSpec, dim: int, half_to_float: bool) -> TensorSpec:
    return softmax(x, dim)


def scan(x: TensorSpec, dim: int, *, dtype: Any = None) -> TensorSpec:
    """``cumsum``, ``cumprod``."""
    return contiguous(x.shape, dtype or sum_type(x.dtype))


def layer_norm(x: TensorSpec, normalized_shape: Sequence[int], *_: Any, **__: Any) -> TensorSpec:
    """Always contiguous."""
    return contiguous(x.shape, x.dtype)


def native_layer_norm(
    x: TensorSpec, normalized_shape: Sequence[int], weight: Any, bias: Any, eps: float
) -> tuple[TensorSpec, TensorSpec, TensorSpec]:
    """The output, mean and reciprocal deviation."""
    lead = x.ndim - len(normalized_shape)
    moment = contiguous((*x.shape[:lead], *(1,) * len(normalized_shape)), x.dtype)
    return contiguous(x.shape, x.dtype), moment, moment


def group_norm(x: TensorSpec, groups: int, *_: Any, **__: Any) -> TensorSpec:
    """Keeps channels-last."""
    return like_format(x.shape, x.dtype, x)


def rms_norm(
    x: TensorSpec, normalized_shape: Sequence[int], weight: Any = None, eps: Any = None
) -> TensorSpec:
    """Keeps channels-last."""
    return like_format(x.shape, x.dtype, x)


def batch_norm(x: TensorSpec, *_: Any, **__: Any) -> TensorSpec:
    """Inference: the input's format."""
    if is_contiguous(x):
        return contiguous(x.shape, x.dtype)
    if suggests_channels_last(x) or is_channels_last_contiguous(x):
        return channels_last(x.shape, x.dtype)
    return contiguous(x.shape, x.dtype)


def native_batch_norm(
    x: TensorSpec, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any
) -> tuple[TensorSpec, TensorSpec, TensorSpec]:
    """In inference the saved moments are empty; in training one for each channel."""
    channels: Int = x.shape[1] if rest and rest[0] is True else 0
    moment = contiguous((channels,), x.dtype)
    return batch_norm(x), moment, moment


def _no_training(x: TensorSpec, *args: Any, **kwargs: Any) -> tuple[TensorSpec, ...]:
    return native_batch_norm(x, *args[:4], False)


def sort(
    x: TensorSpec, dim: int = -1, descending: bool = False, *, stable: bool | None = None
) -> tuple[TensorSpec, TensorSpec]:
    """Values and positions in the input's layout."""
    return dense_like(x), dense_like(x, torch.int64)


def topk(
    x: TensorSpec, k: Int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[TensorSpec, TensorSpec]:
    """Values and positions, contiguous."""
    d = wrap(dim, x.ndim)
    shape = x.shape if x.ndim == 0 else (*x.shape[:d], k, *x.shape[d + 1 :])
    return contiguous(shape, x.dtype), contiguous(shape, torch.int64)


def argsort(
    x: TensorSpec, dim: int = -1, descending: bool = False, *, stable: bool = False
) -> TensorSpec:
    """Positions in the input's layout."""
    return dense_like(x, torch.int64)


def normalize_copy(x: TensorSpec, *_: Any, **__: Any) -> TensorSpec:
    """A contiguous result of the input's shape."""
    return formatted(x, torch.contiguous_format)


ROWS: tuple[Row, ...] = rows(
    ("sum", sum_all),
    ("prod", sum_all),
    ("sum.dim_IntList", sum_dim),
    ("nansum", sum_dim),
    ("prod.dim_int", sum_dim),
    ("mean", mean_all),
    ("mean.dim", mean_dim),
    ("max", same_all),
    ("min", same_all),
    ("amax", amax),
    ("amin", amax),
    ("logsumexp", amax),
    ("max.dim", with_index),
    ("min.dim", with_index),
    ("median.dim", with_index),
    ("argmax", arg),
    ("argmin", arg),
    ("any", any_all),
    ("all", any_all),
    *((f"{name}.{overload}", any_dim) for name in ("any", "all") for overload in ("dim", "dims")),
    *((name, var) for name in ("var", "std")),
    *((f"{name}.dim", var_dim) for name in ("var", "std")),
    *((f"{name}.correction", var_correction) for name in ("var", "std")),
    ("var_mean.correction", var_mean),
    ("std_mean.correction", var_mean),
    ("norm.ScalarOpt_dim", norm),
    ("linalg_vector_norm", norm),
    ("softmax.int", softmax),
    ("log_softmax.int", softmax),
    ("special_softmax", softmax),
    ("_softmax", _softmax),
    ("_log_softmax", _softmax),
    ("cumsum", scan),
    ("cumprod", scan),
    ("layer_norm", layer_norm),
    ("native_layer_norm", native_layer_norm),
    ("group_norm", group_norm),
    ("rms_norm", rms_norm),
    ("batch_norm", batch_norm),
    ("native_batch_norm", native_batch_norm),
    ("_native_batch_norm_legit_no_training", _no_training),
    ("sort", sort),
    ("topk", topk),
    ("argsort", argsort),
)
