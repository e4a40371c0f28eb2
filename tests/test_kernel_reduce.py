"""Reductions of rows and columns against fp64 PyTorch; integers and special values exactly."""

from __future__ import annotations

import math

import pytest
import torch

from accuracy import assert_close
from guarded import guarded
from kernel_runner import ISAS, run_kernel
from torch_aio.codegen.types import f32
from torch_aio.kernels.chain import DTYPES, Chain, Input, Step
from torch_aio.kernels.reduce import ArgReduceSpec, ColumnReduceSpec, RowReduceSpec, columns

SIZES = (0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65, 1000, 5000)
F32, F64, I64, BOOL, F16 = torch.float32, torch.float64, torch.int64, torch.bool, torch.float16

# op, dtype of the operand, dtype of the result, eager
CASES = [
    ("sum", F32, F32, torch.sum), ("mean", F32, F32, torch.mean), ("prod", F32, F32, torch.prod),
    ("max", F32, F32, torch.amax), ("min", F32, F32, torch.amin), ("sum", F64, F64, torch.sum),
    ("sum", I64, I64, torch.sum), ("sum", torch.int32, I64, torch.sum),
    ("sum", BOOL, I64, torch.sum),
    ("max", I64, I64, torch.amax), ("min", torch.int8, torch.int8, torch.amin),
    ("any", BOOL, BOOL, torch.any), ("all", BOOL, BOOL, torch.all), ("any", F32, BOOL, torch.any),
    ("mean", F16, F16, torch.mean), ("sum", torch.bfloat16, torch.bfloat16, torch.sum),
]  # fmt: skip

isas = pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
cases = pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{c[1]}")


def prologue(op, dtype, result):
    """The cast to the dtype that is computed in."""
    wanted = {"any": "bool", "all": "bool"}.get(op, DTYPES[result])
    wanted = "f32" if wanted in ("f16", "bf16") else wanted
    have = DTYPES[dtype]
    steps = () if have == wanted else (Step("cast", (0,), wanted),)
    return Chain((Input(have, "full"),), steps)


def operand(shape, op, dtype):
    if dtype == BOOL:
        return torch.rand(shape) < {"any": 0.01, "all": 0.99}.get(op, 0.5)
    if op == "prod":
        return 1 + torch.randn(shape) * 0.01
    return (torch.randn(shape) * 2).to(dtype)


def check(y, x, eager, dim):
    if not y.is_floating_point():
        assert torch.equal(y, eager(x, dim))
        return
    assert_close(y, eager(x.double(), dim), eager(x, dim))


def of_rows(isa, case, x):
    op, dtype, result, _ = case
    y = torch.zeros(x.shape[0], 2, dtype=result)
    run_kernel(RowReduceSpec(op, prologue(op, dtype, result), DTYPES[result]), isa, x.shape[0], 2,
               cols=x.shape[1], y=y, y_row=2 * y.element_size(),
               x0=x, x0_row=x.shape[1] * x.element_size())  # fmt: skip
    return y[:, 0]


def of_columns(isa, case, x):
    op, dtype, result, _ = case
    outer, depth, inner = x.shape
    y = guarded(torch.zeros(outer, inner, dtype=result))
    units = outer * -(-inner // columns(isa.lanes(f32)))
    run_kernel(ColumnReduceSpec(op, prologue(op, dtype, result), DTYPES[result]), isa, units, 2,
               depth=depth, inner=inner, x=x, x_outer=depth * inner * x.element_size(),
               x_depth=inner * x.element_size(), y=y, y_outer=inner * y.element_size())  # fmt: skip
    return y


@isas
@cases
def test_rows(isa, case):
    for n in SIZES:
        if n or case[0] not in ("max", "min"):
            x = guarded(operand((5, n), *case[:2]))
            check(of_rows(isa, case, x), x, case[3], -1)


@isas
@cases
def test_columns(isa, case):
    for inner in (1, 7, 16, 17, 65, 130):
        for depth in (1, 3, 200):
            x = guarded(operand((2, depth, inner), *case[:2]))
            check(of_columns(isa, case, x), x, case[3], 1)


@isas
def test_the_sum_of_nothing_is_zero_and_its_mean_nan(isa):
    x = torch.zeros(2, 0)
    assert torch.equal(of_rows(isa, CASES[0], x), torch.zeros(2))
    assert of_rows(isa, CASES[1], x).isnan().all()


@isas
@pytest.mark.parametrize("case", [CASES[0], CASES[3], CASES[4]], ids=lambda c: c[0])
def test_special_values(isa, case):
    x = torch.randn(6, 37)
    x[0, 3], x[1, 36], x[2, 5], x[3] = math.nan, math.inf, -math.inf, -math.inf
    x[4, 1], x[4, 2] = math.inf, -math.inf
    torch.testing.assert_close(of_rows(isa, case, x), case[3](x, -1), equal_nan=True)
    down = of_columns(isa, case, x.t().contiguous()[None])
    torch.testing.assert_close(down[0], case[3](x, -1), equal_nan=True)


@isas
def test_long_sums_are_as_good_as_eager(isa):
    x = torch.randn(1, 1 << 19) + 0.1
    check(of_rows(isa, CASES[0], x), x, torch.sum, -1)
    x = x.view(1, -1, 16)
    check(of_columns(isa, CASES[0], x), x, torch.sum, 1)


@isas
@pytest.mark.parametrize("op", ["max", "min"])
@pytest.mark.parametrize("dtype", [F32, I64], ids=str)
def test_places_of_extremes_are_the_first(isa, op, dtype):
    for n in (1, 7, 8, 9, 16, 17, 33, 1000):
        x = torch.randint(-3, 4, (6, n)).to(dtype)
        if dtype == F32:
            x[0, n // 2], x[1, n // 3 :], x[2], x[3] = math.nan, math.nan, -math.inf, math.inf
        x = guarded(x)
        values, places = torch.zeros(6, dtype=dtype), torch.zeros(6, dtype=I64)
        run_kernel(ArgReduceSpec(op, DTYPES[dtype], has_values=True), isa, 6, 2, cols=n,
                   x=x, x_row=n * x.element_size(), values=values,
                   values_row=x.element_size(), indices=places, indices_row=8)  # fmt: skip
        assert torch.equal(places, getattr(torch, f"arg{op}")(x, -1))
        eager = getattr(torch, f"a{op}")(x, -1)
        torch.testing.assert_close(values, eager, equal_nan=True, rtol=0, atol=0)
