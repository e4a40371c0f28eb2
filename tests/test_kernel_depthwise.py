"""Depthwise and narrow grouped convolutions in the blocked layout."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import conv2d

import blocked
from kernel_runner import ISAS, run_kernel
from torch_aio.codegen.types import f32
from torch_aio.kernels.blocked import ACCUMULATOR
from torch_aio.kernels.chain import Chain, Input, Step
from torch_aio.kernels.depthwise import Depthwise
from torch_aio.kernels.pack_conv import PackChannels, PackDepthwise

EPS = torch.finfo(torch.float32).eps

BIAS_RELU_ADD = Chain(
    (Input("f32", "full"), Input("f32", "channel"), Input("f32", "full")),
    (Step("add", (0, 1), "f32"), Step("relu", (3,), "f32"), Step("add", (4, 2), "f32")),
)

CASES = [  # channels, group, (batch, height, width), kernel, stride, padding, dilation, splits
    (1, 1, (1, 1, 1), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (7, 1, (2, 5, 3), (3, 3), (1, 1), (1, 1), (1, 1), 2),
    (33, 1, (1, 17, 19), (3, 3), (1, 1), (1, 1), (1, 1), 5),
    (16, 1, (3, 4, 4), (3, 3), (1, 1), (0, 0), (1, 1), 2),
    (17, 1, (1, 9, 14), (3, 3), (2, 2), (1, 1), (1, 1), 2),
    (64, 1, (1, 7, 7), (3, 3), (2, 1), (1, 1), (1, 1), 1),
    (9, 1, (1, 8, 12), (5, 5), (1, 1), (2, 2), (1, 1), 1),
    (15, 1, (1, 13, 11), (7, 7), (1, 1), (3, 3), (1, 1), 2),
    (8, 1, (1, 1, 19), (1, 3), (1, 1), (0, 2), (1, 2), 1),
    (32, 1, (1, 9, 9), (3, 3), (1, 1), (2, 2), (2, 2), 2),
    (32, 4, (1, 7, 9), (3, 3), (1, 1), (1, 1), (1, 1), 2),
    (12, 2, (2, 6, 3), (3, 3), (2, 2), (1, 1), (1, 1), 1),
    (48, 8, (1, 5, 5), (1, 1), (1, 1), (0, 0), (1, 1), 1),
]


def run(isa, x, weight, case, chain=ACCUMULATOR, bias=None, residual=None):
    channels, group, _, kernel, stride, padding, dilation, splits = case
    source = blocked.blocked(x, isa.block, *padding)
    shape = conv2d(x, weight, None, stride, padding, dilation, channels // group).shape
    y = blocked.empty(tuple(shape), isa.block, 1, 1)
    n, _, height, width = shape
    strides = source.strides("x")
    row, blocks, rows = strides.pop("x_row"), y.storage.shape[1], 3
    spec = Depthwise(kernel, stride[1], dilation[1], group, channels % isa.block != 0, chain)
    operands = {}
    if bias is not None:
        e2 = blocked.blocked(residual, isa.block, 2, 0)
        operands = {"e1": PackChannels(isa.block)(bias), "e1_batch": 0, "e1_block": isa.block * 4,
                    "e2": e2.pointer, **e2.strides("e2")}  # fmt: skip
    run_kernel(spec, isa, n * blocks * -(-height // rows), splits, x=source.storage, **strides,
               row_step=stride[0] * row, tap_step=dilation[0] * row,
               w=PackDepthwise(isa.block)(weight), y=y.pointer, **y.strides("y"),
               channels=channels, height=height, width=width, rows=rows, **operands)  # fmt: skip
    return y.logical()


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_depthwise_is_as_near_to_fp64_as_eager(isa, case):
    channels, group, (n, height, width), kernel, stride, padding, dilation, _ = case
    if group > isa.lanes(f32):
        pytest.skip("a group must fit a vector")
    x = torch.randn(n, channels, height, width)
    weight = torch.randn(channels, group, *kernel)
    options = (None, stride, padding, dilation, channels // group)
    want = conv2d(x.double(), weight.double(), *options)
    scale = want.abs().max()
    eager = ((conv2d(x, weight, *options) - want).abs().max() / scale).item()
    error = ((run(isa, x, weight, case) - want).abs().max() / scale).item()
    assert error <= max(2 * eager, 8 * EPS)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_epilogue_reads_bias_and_residual_and_keeps_padding_zero(isa):
    case = CASES[2]
    x, weight = torch.randn(1, 33, 17, 19), torch.randn(33, 1, 3, 3)
    bias, residual = torch.randn(33), torch.randn(1, 33, 17, 19)
    y = run(isa, x, weight, case, BIAS_RELU_ADD, bias, residual)
    want = conv2d(x, weight, bias, padding=1, groups=33).relu() + residual
    torch.testing.assert_close(y, want)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_non_finite_values_stay_in_their_group(isa):
    case = CASES[11]
    x, weight = torch.randn(2, 12, 6, 3), torch.randn(12, 2, 3, 3)
    x[:, 4], x[0, 7, 2, 1] = float("inf"), float("nan")
    y = run(isa, x, weight, case)
    want = conv2d(x, weight, None, 2, 1, 1, 6)
    torch.testing.assert_close(y, want, equal_nan=True)
