"""Rotary embedding against fp64 PyTorch."""

from __future__ import annotations

import pytest
import torch

from accuracy import assert_close
from guarded import guarded
from kernel_runner import ISAS, run_kernel
from torch_aio.kernels.chain import DTYPES
from torch_aio.kernels.rotate import RotateSpec
from torch_aio.ops.rotate import rotate

HALVES = (1, 7, 8, 9, 15, 16, 17, 32, 33, 65)
isas = pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)


def turned(isa, x, cos, sin):
    """The kernel over x [a, b, c, 2 h] and tables [.., c, h or 2 h], which broadcast."""
    y, half = guarded(torch.zeros_like(x)), x.shape[-1] // 2
    arguments = {"n1": x.shape[1], "n2": x.shape[2], "half": half}
    for name, value in (("x", x), ("cos", cos), ("sin", sin), ("y", y)):
        steps = value.expand(*x.shape[:-1], value.shape[-1]).stride()
        arguments[name] = value
        arguments |= {f"{name}_{d}": steps[d] * value.element_size() for d in range(3)}
    for name, table in (("cos_half", cos), ("sin_half", sin)):
        arguments[name] = half * table.element_size() if table.shape[-1] > half else 0
    spec = RotateSpec(DTYPES[x.dtype], DTYPES[cos.dtype])
    run_kernel(spec, isa, x.shape[0] * x.shape[1], 3, **arguments)
    return y


@isas
@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("is_whole", [False, True], ids=["half", "whole"])
def test_tables_of_either_width(isa, half, is_whole):
    x = guarded(torch.randn(2, 3, 5, 2 * half))
    cos, sin = (guarded(torch.randn(2, 1, 5, half << is_whole)) for _ in range(2))
    expected = rotate(x.double(), cos.double(), sin.double())
    assert_close(turned(isa, x, cos, sin), expected, rotate(x, cos, sin))


@isas
@pytest.mark.parametrize("table", [torch.float32, None], ids=["by f32", "by its own"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_f32(isa, dtype, table):
    x = guarded(torch.randn(2, 3, 5, 34).to(dtype))
    cos, sin = (guarded(torch.randn(5, 17).to(table or dtype)) for _ in range(2))
    expected = rotate(x.double(), cos.double(), sin.double()).to(dtype)
    y = turned(isa, x, cos, sin)
    assert_close(y, expected.double(), expected)
