"""Softmax and normalisation of rows against fp64 PyTorch."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from accuracy import assert_close
from guarded import guarded
from kernel_runner import ISAS, run_kernel
from torch_aio.codegen.types import f32
from torch_aio.kernels.chain import Chain, Input, Step
from torch_aio.kernels.norm import GroupNormSpec, NormSpec
from torch_aio.kernels.softmax import ColumnSoftmaxSpec, SoftmaxSpec

SIZES = (1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 1000, 5000)
SCALE_AND_MASK = Chain(
    (Input("f32", "full"), Input("f32", "scalar"), Input("f32", "channel")),
    (Step("mul", (0, 1), "f32"), Step("add", (3, 2), "f32")),
)
SUM_WITH_RESIDUAL = Chain(
    (Input("f32", "full"), Input("f32", "full")), (Step("add", (0, 1), "f32"),)
)
RELU = Chain((Input("f32", "full"),), (Step("relu", (0,), "f32"),))
TO_HALF = Chain((Input("f32", "full"),), (Step("cast", (0,), "f16"),))

isas = pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)


def softmax(isa, x, spec, y=None, **rest):
    """The kernel over the rows of a matrix."""
    y = guarded(torch.zeros_like(x)) if y is None else y
    rows, cols = x.shape
    run_kernel(spec, isa, rows, 2, cols=cols, y=y, y_row=y.stride(0) * y.element_size(),
               x0=x, x0_row=x.stride(0) * 4, **rest)  # fmt: skip
    return y


@isas
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("is_log", [False, True])
def test_softmax(isa, n, is_log):
    x = guarded(torch.randn(5, n) * 3 + 1)
    eager = torch.log_softmax if is_log else torch.softmax
    y = softmax(isa, x, SoftmaxSpec(is_log=is_log))
    assert_close(y, eager(x.double(), -1), eager(x, -1))


@isas
@pytest.mark.parametrize("is_log", [False, True])
def test_rows_with_special_values_equal_eager(isa, is_log):
    x = torch.randn(7, 21)
    x[0] = -math.inf
    x[1, 3], x[2, 5], x[3, ::2], x[4] = math.nan, math.inf, -math.inf, 1e38
    x[5, 1], x[6, 2] = -200.0, 3.4e38
    eager = torch.log_softmax if is_log else torch.softmax
    y = softmax(isa, x, SoftmaxSpec(is_log=is_log))
    assert_close(y, eager(x.double(), -1).float().double(), eager(x, -1))


@isas
def test_softmax_with_scale_and_mask_before_and_half_after(isa):
    x, mask = torch.randn(4, 37), torch.randn(37)
    mask[20:] = -math.inf
    expected = torch.softmax(x.double() * 0.125 + mask.double(), -1)
    y = softmax(isa, x, SoftmaxSpec(SCALE_AND_MASK), x1=torch.tensor([0.125]), x2=mask)
    assert_close(y, expected, torch.softmax(x * 0.125 + mask, -1))
    y = torch.zeros(4, 37, dtype=torch.float16)
    stage = torch.zeros(2, 37)
    softmax(isa, x, SoftmaxSpec(epilogue=TO_HALF), y, stage=stage)
    assert_close(y, torch.softmax(x.double(), -1), torch.softmax(x, -1).half())


@isas
@pytest.mark.parametrize("inner", [1, 9, 16, 33])
@pytest.mark.parametrize("is_log", [False, True])
def test_softmax_down_columns(isa, inner, is_log):
    x = torch.randn(3, 11, inner)
    x[0, :, 0], x[1, 2, 0], x[2, 3, 0] = -math.inf, math.nan, math.inf
    x, y = guarded(x), guarded(torch.zeros_like(x))
    outer, depth = 11 * inner * 4, inner * 4
    run_kernel(ColumnSoftmaxSpec(is_log), isa, 3 * -(-inner // isa.lanes(f32)), 2,
               depth=11, inner=inner, x=x, x_outer=outer, x_depth=depth,
               y=y, y_outer=outer, y_depth=depth)  # fmt: skip
    eager = torch.log_softmax if is_log else torch.softmax
    assert_close(y, eager(x.double(), 1), eager(x, 1))


def norm(isa, spec, x, y=None, **rest):
    """The kernel over the rows of a matrix, eps 1e-5."""
    y = guarded(torch.zeros_like(x)) if y is None else y
    run_kernel(spec, isa, x.shape[0], 2, cols=x.shape[1], eps=1e-5, y=y,
               y_row=y.stride(0) * y.element_size(),
               x0=x, x0_row=x.stride(0) * 4, **rest)  # fmt: skip
    return y


@isas
@pytest.mark.parametrize("n", SIZES)
def test_layer_norm(isa, n):
    x, w, b = (guarded(t) for t in (torch.randn(5, n) * 3 + 1, torch.randn(n), torch.randn(n)))
    y = norm(isa, NormSpec(), x, weight=w, bias=b)
    doubled = [t.double() for t in (x, w, b)]
    expected = functional.layer_norm(doubled[0], (n,), *doubled[1:])
    assert_close(y, expected, functional.layer_norm(x, (n,), w, b))
    y = norm(isa, NormSpec(has_weight=False, has_bias=False), x)
    expected = functional.layer_norm(x.double(), (n,))
    assert_close(y, expected, functional.layer_norm(x, (n,)))


@isas
@pytest.mark.parametrize("n", SIZES)
def test_rms_norm(isa, n):
    x, w = guarded(torch.randn(5, n) * 3 + 1), guarded(torch.randn(n))
    y = norm(isa, NormSpec(is_rms=True, has_bias=False), x, weight=w)
    expected = functional.rms_norm(x.double(), (n,), w.double(), 1e-5)
    assert_close(y, expected, functional.rms_norm(x, (n,), w, 1e-5))


@isas
def test_rows_far_from_zero_keep_their_variance(isa):
    """A one-pass variance would lose it."""
    x = torch.randn(4, 300) + 1000
    y = norm(isa, NormSpec(has_weight=False, has_bias=False), x)
    assert_close(y, functional.layer_norm(x.double(), (300,)), functional.layer_norm(x, (300,)))


@isas
def test_a_row_with_nan_or_infinity_becomes_nan(isa):
    x = torch.randn(3, 40)
    x[0, 3], x[1, 39] = math.nan, math.inf
    y = norm(isa, NormSpec(has_weight=False, has_bias=False), x)
    assert y[:2].isnan().all()
    assert not y[2].isnan().any()


@isas
def test_residual_before_the_norm_can_be_kept(isa):
    x, r = torch.randn(5, 37), torch.randn(5, 37)
    both = torch.zeros(5, 37)
    spec = NormSpec(False, False, False, SUM_WITH_RESIDUAL, RELU, keeps_sum=True)
    y = norm(isa, spec, x, x1=r, x1_row=37 * 4, sum=both, sum_row=37 * 4)
    assert torch.equal(both, x + r)
    expected = functional.layer_norm((x + r).double(), (37,)).relu()
    assert_close(y, expected, functional.layer_norm(x + r, (37,)).relu())
    half = torch.zeros(5, 37, dtype=torch.float16)
    spec = NormSpec(False, False, False, SUM_WITH_RESIDUAL, TO_HALF)
    norm(isa, spec, x, half, x1=r, x1_row=37 * 4, stage=torch.zeros(2, 37))
    expected = functional.layer_norm((x + r).double(), (37,))
    assert_close(half, expected, functional.layer_norm(x + r, (37,)).half())


@isas
@pytest.mark.parametrize("plane", [1, 5, 35, 64])
@pytest.mark.parametrize(("groups", "channels"), [(1, 6), (3, 2), (6, 1)])
def test_group_norm(isa, plane, groups, channels):
    x = guarded(torch.randn(3, 6, plane) * 2 + 1)
    w, b, y = torch.randn(6), torch.randn(6), guarded(torch.zeros(3, 6, plane))
    if channels * plane == 1:
        x = torch.zeros_like(x)
    run_kernel(GroupNormSpec(), isa, 3 * groups, 2, plane=plane, channels=channels, groups=groups,
               eps=1e-5, x=x, y=y, weight=w, bias=b)  # fmt: skip
    expected = functional.group_norm(x.double(), groups, w.double(), b.double()) \
        if channels * plane > 1 else b.double()[:, None].expand(3, 6, 1)  # fmt: skip
    eager = functional.group_norm(x, groups, w, b) if channels * plane > 1 else expected.float()
    assert_close(y, expected, eager)
