"""Pooling in the blocked layout against PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

import blocked
from kernel_runner import ISAS, run_kernel
from torch_aio.kernels.pool import MOST_COLUMNS, AdaptiveAvgPool, Pool

# (batch, channels, height, width), kernel, stride, padding, dilation, ceil mode, splits
WINDOWS = [
    ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0), (1, 1), False, 1),
    ((2, 3, 17, 19), (3, 3), (2, 2), (1, 1), (1, 1), False, 5),
    ((1, 17, 12, 12), (3, 3), (2, 2), (1, 1), (1, 1), True, 2),
    ((1, 64, 8, 8), (2, 2), (2, 2), (0, 0), (1, 1), False, 2),
    ((3, 9, 7, 6), (2, 2), (2, 2), (0, 0), (1, 1), True, 1),
    ((1, 15, 9, 11), (3, 3), (1, 1), (1, 1), (1, 1), False, 2),
    ((1, 8, 1, 19), (1, 4), (1, 3), (0, 2), (1, 1), True, 1),
    ((1, 33, 5, 7), (5, 7), (5, 7), (0, 0), (1, 1), False, 1),
    ((1, 7, 14, 13), (11, 12), (1, 1), (5, 6), (1, 1), False, 2),
    ((1, 16, 9, 15), (3, 2), (2, 3), (1, 1), (2, 3), True, 1),
]


def run(isa, kind, x, y, case, include_pad=True, divisor=0):
    (_, _, in_height, in_width), kernel, stride, padding, dilation, _, splits = case
    source, n = blocked.blocked(x, isa.block), x.shape[0]
    height, width = (s - 2 * h for s, h in zip(y.storage.shape[2:4], (y.top, y.left), strict=True))
    columns = kernel[1] if kernel[1] <= MOST_COLUMNS else 0
    spec = Pool(kind, columns, stride[1], dilation[1])
    run_kernel(spec, isa, n * source.storage.shape[1] * height, splits,
               x=source.storage, **source.strides("x"), y=y.pointer, **y.strides("y"),
               blocks=source.storage.shape[1], in_height=in_height, in_width=in_width,
               height=height, width=width, kernel_h=kernel[0], kernel_w=kernel[1],
               stride_h=stride[0], stride_w=stride[1], pad_h=padding[0], pad_w=padding[1],
               dilation_h=dilation[0], dilation_w=dilation[1],
               include_pad=int(include_pad), divisor=divisor)  # fmt: skip
    return y.logical()


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("case", WINDOWS, ids=str)
def test_max_pool_equals_eager_with_special_values(isa, case):
    shape, kernel, stride, padding, dilation, ceil, _ = case
    x = torch.randn(shape)
    x.view(-1)[:: max(x.numel() // 9, 1)] = float("nan")
    x.view(-1)[1 :: max(x.numel() // 7, 2)] = float("-inf")
    x.view(-1)[3 :: max(x.numel() // 5, 2)] = float("inf")
    want = functional.max_pool2d(x, kernel, stride, padding, dilation, ceil)
    y = blocked.empty(tuple(want.shape), isa.block, 1, 1)
    torch.testing.assert_close(run(isa, "max", x, y, case), want, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("case", [c for c in WINDOWS if c[4] == (1, 1)], ids=str)
def test_avg_pool_is_as_near_to_fp64_as_eager(isa, case):
    shape, kernel, stride, padding, _, ceil, _ = case
    x = torch.randn(shape)
    for include_pad, divisor in ((True, 0), (False, 0), (True, 5)):
        options = (kernel, stride, padding, ceil, include_pad, divisor or None)
        want = functional.avg_pool2d(x.double(), *options)
        y = blocked.empty(tuple(want.shape), isa.block)
        error = (run(isa, "avg", x, y, case, include_pad, divisor) - want).abs().max()
        eager = (functional.avg_pool2d(x, *options) - want).abs().max()
        assert error <= max(2 * eager, 1e-6 * want.abs().max())


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("size", [(1, 1), (7, 7), (3, 5), (2, 40)])
def test_adaptive_avg_pool_equals_eager(isa, size):
    for shape, splits in (((1, 1, 1, 1), 1), ((2, 17, 17, 19), 5), ((1, 64, 7, 7), 2)):
        x = torch.randn(shape)
        want = functional.adaptive_avg_pool2d(x.double(), size)
        source, y = blocked.blocked(x, isa.block), blocked.empty(tuple(want.shape), isa.block)
        blocks = source.storage.shape[1]
        run_kernel(AdaptiveAvgPool(), isa, shape[0] * blocks * size[0], splits,
                   x=source.storage, **source.strides("x"), y=y.pointer, **y.strides("y"),
                   blocks=blocks, in_height=shape[2], in_width=shape[3],
                   height=size[0], width=size[1])  # fmt: skip
        assert (y.logical() - want).abs().max() <= 1e-6 * want.abs().max()
