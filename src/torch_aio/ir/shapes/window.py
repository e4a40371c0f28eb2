"""Shapes of convolutions, pooling, resampling and padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from torch_aio.ir.shapes.layout import (
    channels_last,
    dense_like,
    like_format,
    suggests_channels_last,
)
from torch_aio.ir.shapes.table import Row, rows
from torch_aio.ir.shapes.view import squeeze_dim, unsqueeze
from torch_aio.ir.spec import TensorSpec, contiguous
from torch_aio.ir.symbols import Int

Ints = int | Sequence[int]


def spread(value: Ints, rank: int) -> tuple[int, ...]:
    """One number for all dimensions, or one for each."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * rank if len(values) == 1 else values


def convolution(
    x: TensorSpec,
    weight: TensorSpec,
    bias: TensorSpec | None,
    stride: Ints,
    padding: Ints | str,
    dilation: Ints,
    transposed: bool,
    output_padding: Ints,
    groups: int,
    *_: Any,
) -> TensorSpec:
    """Any rank, transposed or not; without a batch where the input has none."""
    rank = weight.ndim - 2
    if x.ndim == rank + 1:
        options = (stride, padding, dilation, transposed, output_padding, groups)
        batched = convolution(unsqueeze(x, 0), weight, bias, *options)
        return squeeze_dim(batched, 0)
    steps, spans = spread(stride, rank), spread(dilation, rank)
    pads = _pads(padding, weight, spans, rank)
    extra = spread(output_padding, rank)
    sizes: list[Int] = []
    for d in range(rank):
        reach = spans[d] * (weight.shape[d + 2] - 1)
        if transposed:
            size = (x.shape[d + 2] - 1) * steps[d] - pads[d] + reach + extra[d] + 1
        else:
            size = (x.shape[d + 2] + pads[d] - reach - 1) // steps[d] + 1
        sizes.append(size)
    channels = weight.shape[1] * groups if transposed else weight.shape[0]
    channels = channels if weight.numel else 0  # eager's answer to an image without channels
    return _formatted((x.shape[0], channels, *sizes), x, weight)


def _pads(padding: Ints | str, weight: TensorSpec, spans: Sequence[int], rank: int) -> list[Int]:
    """Both sides' padding together."""
    if padding == "same":
        return [spans[d] * (weight.shape[d + 2] - 1) for d in range(rank)]
    sides = spread(0 if isinstance(padding, str) else padding, rank)
    return [2 * p for p in sides]


def _formatted(shape: tuple[Int, ...], x: TensorSpec, weight: TensorSpec) -> TensorSpec:
    if any(size == 0 for size in x.shape):
        return contiguous(shape, x.dtype)
    return like_format(shape, x.dtype, x, weight)


def conv(
    x: TensorSpec,
    weight: TensorSpec,
    bias: TensorSpec | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> TensorSpec:
    """``conv1d``, ``conv2d``, ``conv3d``."""
    return convolution(x, weight, bias, stride, padding, dilation, False, 0, groups)


def conv_transpose(
    x: TensorSpec,
    weight: TensorSpec,
    bias: TensorSpec | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> TensorSpec:
    """``conv_transpose1d``, ``2d``, ``3d``."""
    return convolution(x, weight, bias, stride, padding, dilation, True, output_padding, groups)


def pooled(
    x: TensorSpec, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil: bool, rank: int
) -> tuple[Int, ...]:
    """The output shape of a pooling window (pooling_output_shape in ATen/native/Pool.h)."""
    windows = spread(kernel, rank)
    steps = windows if stride in ((), []) or stride is None else spread(stride, rank)
    pads, spans = spread(padding, rank), spread(dilation, rank)
    sizes: list[Int] = []
    for d, size in enumerate(x.shape[-rank:]):
        free = size + 2 * pads[d] - spans[d] * (windows[d] - 1) - 1
        count = (free + (steps[d] - 1 if ceil else 0)) // steps[d] + 1
        if ceil and (count - 1) * steps[d] >= size + pads[d]:
            count = count - 1
        sizes.append(count)
    return (*x.shape[:-rank], *sizes)


def _max_pool(rank: int, indices: bool) -> Any:
    def shape(
        x: TensorSpec,
        kernel: Ints,
        stride: Any = (),
        padding: Ints = 0,
        dilation: Ints = 1,
        ceil_mode: bool = False,
    ) -> Any:
        size = pooled(x, kernel, stride, padding, dilation, ceil_mode, rank)
        out = contiguous(size, x.dtype) if rank == 1 else like_format(size, x.dtype, x)
        return (out, TensorSpec(out.shape, torch.int64, out.stride)) if indices else out

    return shape


def _avg_pool(rank: int) -> Any:
    def shape(
        x: TensorSpec,
        kernel: Ints,
        stride: Any = (),
        padding: Ints = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: Any = None,
    ) -> TensorSpec:
        size = pooled(x, kernel, stride, padding, 1, ceil_mode, rank)
        if rank == 1:
            return _by_rows(lambda rows: like_format((*size[:-1], 1, size[-1]), x.dtype, rows), x)
        return like_format(size, x.dtype, x)

    return shape


def _by_rows(function: Callable[[TensorSpec], TensorSpec], x: TensorSpec) -> TensorSpec:
    """1-d pooling done as 2-d pooling of one row, strides included."""
    return squeeze_dim(function(unsqueeze(x, -2)), -2)


def adaptive_avg_pool(x: TensorSpec, output_size: Sequence[Any]) -> TensorSpec:
    """``adaptive_avg_pool1d``, ``2d``, ``3d``."""
    rank = len(output_size)
    sizes = (s if w is None else w for s, w in zip(x.shape[-rank:], output_size, strict=True))
    shape = (*x.shape[:-rank], *sizes)
    if rank == 1:
        return _by_rows(lambda row: like_format((*shape[:-1], 1, shape[-1]), x.dtype, row), x)
    if rank == 2 and x.ndim == 4 and tuple(output_size) == (1, 1) and suggests_channels_last(x):
        return channels_last(shape, x.dtype)
    return contiguous(shape, x.dtype) if rank != 2 else like_format(shape, x.dtype, x)


def adaptive_max_pool(x: TensorSpec, output_size: Sequence[Any]) -> tuple[TensorSpec, TensorSpec]:
    """``adaptive_max_pool2d`` and its indices."""
    out = adaptive_avg_pool(x, output_size)
    return out, TensorSpec(out.shape, torch.int64, out.stride)


def upsample_vec(x: TensorSpec, output_size: Any, *rest: Any) -> TensorSpec:
    """The ``vec`` overloads: an output size or scale factors (the last list)."""
    rank = x.ndim - 2
    sizes = tuple(output_size) if output_size is not None else ()
    if not sizes:
        sizes = tuple(_scaled(s, f) for s, f in zip(x.shape[2:], rest[-1], strict=True))
    return like_format((*x.shape[: x.ndim - rank], *sizes), x.dtype, x)


def _scaled(size: Int, factor: float) -> Int:
    return size * int(factor) if float(factor).is_integer() else int(float(size) * factor)  # type: ignore[arg-type]


def upsample(x: TensorSpec, output_size: Sequence[Int], *_: Any) -> TensorSpec:
    """The plain overloads."""
    return like_format((*x.shape[:2], *output_size), x.dtype, x)


def constant_pad(x: TensorSpec, pad: Sequence[int], value: Any = 0) -> TensorSpec:
    """Pads in pairs from the last dimension; the input's format."""
    sizes = list(x.shape)
    for i in range(len(pad) // 2):
        sizes[-1 - i] = sizes[-1 - i] + pad[2 * i] + pad[2 * i + 1]
    if all(p == 0 for p in pad):
        return dense_like(x)
    return like_format(tuple(sizes), x.dtype, x)


def pad_mode(
    x: TensorSpec, pad: Sequence[int], mode: str = "constant", value: Any = None
) -> TensorSpec:
    """``aten.pad`` in any mode."""
    if mode == "constant":
        return constant_pad(x, pad)
    return side_pad(x, pad)


def side_pad(x: TensorSpec, pad: Sequence[int]) -> TensorSpec:
    """Reflection and replication."""
    sizes = list(x.shape)
    for i in range(len(pad) // 2):
        sizes[-1 - i] = sizes[-1 - i] + pad[2 * i] + pad[2 * i + 1]
    return (
        like_format(tuple(sizes), x.dtype, x) if len(pad) > 2 else contiguous(tuple(sizes), x.dtype)
    )


RESAMPLED = (
    *(f"upsample_{kind}d" for kind in ("nearest1", "nearest2", "nearest3", "linear1")),
    *(f"upsample_{kind}d" for kind in ("bilinear2", "bicubic2", "trilinear3")),
    *(f"_upsample_nearest_exact{n}d" for n in (1, 2, 3)),
)
ROWS: tuple[Row, ...] = rows(
    ("convolution", convolution),
    ("_convolution", convolution),
    *((f"conv{n}d", conv) for n in (1, 2, 3)),
    *((f"conv_transpose{n}d", conv_transpose) for n in (1, 2, 3)),
    *((f"max_pool{n}d", _max_pool(n, indices=False)) for n in (1, 2, 3)),
    *((f"max_pool{n}d_with_indices", _max_pool(n, indices=True)) for n in (1, 2, 3)),
    *((f"avg_pool{n}d", _avg_pool(n)) for n in (1, 2, 3)),
    *((f"adaptive_avg_pool{n}d", adaptive_avg_pool) for n in (1, 2, 3)),
    ("_adaptive_avg_pool2d", adaptive_avg_pool),
    ("adaptive_max_pool2d", adaptive_max_pool),
    *((f"{name}.vec", upsample_vec) for name in RESAMPLED),
    *((name, upsample) for name in RESAMPLED),
    ("constant_pad_nd", constant_pad),
    ("pad", pad_mode),
    *((f"{kind}_pad{n}d", side_pad) for kind in ("reflection", "replication") for n in (1, 2, 3)),
)
