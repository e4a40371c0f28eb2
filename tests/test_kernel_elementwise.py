"""Elementwise kernels, copies and fills over strided operands."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from guarded import guarded
from kernel_runner import ISAS, run_kernel
from torch_aio.codegen.types import f32
from torch_aio.kernels.chain import DTYPES, Chain, Const, Input, Step
from torch_aio.kernels.copy import TransposeSpec
from torch_aio.kernels.elementwise import ElementwiseSpec

SIZES = (1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 1000)
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
DTYPE_LIST = (*FLOATS, torch.int64, torch.int32, torch.int8, torch.bool)
GELU_OF_SUM = Chain(
    (Input("f32", "full"), Input("f32", "full")),
    (Step("add", (0, 1), "f32"), Step("gelu", (2,), "f32")),
)

isas = pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)


def apply(isa, steps, result, operands, tile=(3, 48), splits=2):
    """``result = chain(operands)``; the accesses follow from the strides of the last dimension."""

    def access(tensor):
        return {1: "full", 0: "scalar"}.get(tensor.stride(-1), "strided")

    inputs = tuple(Input(DTYPES[x.dtype], access(x)) for x in operands)
    output = "full" if result.stride(-1) == 1 else "strided"
    rank = result.dim()
    spec = ElementwiseSpec(Chain(inputs, steps), rank, output)
    arguments = {f"n{d}": n for d, n in enumerate(result.shape)} | {"cols": tile[1]}
    units = math.prod(result.shape[:-2]) * -(-result.shape[-1] // tile[1])
    if rank > 1:
        arguments["rows"] = tile[0]
        units *= -(-result.shape[-2] // tile[0])
    named = [("y", result), *((f"x{j}", x) for j, x in enumerate(operands))]
    for name, tensor in named:
        arguments[name] = tensor
        for d in range(rank):
            arguments[f"{name}_{d}"] = tensor.stride(d) * tensor.element_size()
    wanted = {name: arguments[name] for name in spec.params.kinds}
    run_kernel(spec, isa, units, splits, **wanted)


@isas
@pytest.mark.parametrize("n", SIZES)
def test_rows_of_every_length_and_nothing_beside_them(isa, n):
    a, b = torch.randn(5, n), torch.randn(5, n)
    y = torch.full((5, n + 1), 7.0)
    apply(isa, GELU_OF_SUM.steps, y[:, :n], [a, b], tile=(2, 2048))
    torch.testing.assert_close(y[:, :n], functional.gelu(a + b))
    assert (y[:, n] == 7).all()


@isas
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool], ids=str)
def test_nothing_behind_the_operands_is_touched(isa, dtype):
    for n in (1, 5, 16, 17, 67):
        a = guarded((torch.randn(n) * 3).to(dtype))
        y = guarded(torch.zeros(n))
        apply(isa, (Step("cast", (0,), "f32"),), y, [a], tile=(1, 16))
        assert torch.equal(y, a.float())


STRIDES = {
    "row broadcast": (lambda x: x[:1].expand(6, 35), lambda y: y),
    "column broadcast": (lambda x: x[:, :1].expand(6, 35), lambda y: y),
    "scalar": (lambda x: x[0, 0].expand(6, 35), lambda y: y),
    "every second": (lambda x: x.repeat(1, 2)[:, ::2], lambda y: y),
    "transposed operand": (lambda x: x.t().contiguous().t(), lambda y: y),
    "transposed result": (lambda x: x, lambda y: y.t().contiguous().t()),
    "both strided": (lambda x: x.repeat(1, 3)[:, ::3], lambda y: y.repeat(2, 2)[::2, ::2]),
}


@isas
@pytest.mark.parametrize("form", STRIDES)
def test_operands_of_any_stride(isa, form):
    of_operand, of_result = STRIDES[form]
    a, b = torch.randn(6, 35), torch.randn(6, 35)
    b = of_operand(b)
    y = of_result(torch.zeros(6, 35))
    apply(isa, (Step("sub", (0, 1), "f32"), Step("mul", (2, Const(2)), "f32")), y, [a, b])
    assert torch.equal(y, (a - b) * 2)


@isas
@pytest.mark.parametrize("shape", [(3,), (4, 5), (2, 3, 4, 18), (2, 1, 3, 2, 3, 17)], ids=str)
def test_every_rank(isa, shape):
    a, b = torch.randn(shape), torch.randn(shape[-1:]).expand(shape)
    y = torch.zeros(shape)
    apply(isa, (Step("max", (0, 1), "f32"),), y, [a, b], tile=(2, 16), splits=3)
    assert torch.equal(y, torch.maximum(a, b))


@isas
@pytest.mark.parametrize("source", DTYPE_LIST, ids=str)
@pytest.mark.parametrize("target", DTYPE_LIST, ids=str)
def test_casts_equal_eager(isa, source, target):
    x = (torch.randn(37) * 20).to(source)
    y = torch.zeros(37, dtype=target)
    apply(isa, (Step("cast", (0,), DTYPES[target]),), y, [x])
    assert torch.equal(y, x.to(target))


@isas
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_arithmetic_of_other_float_types_rounds_after_each_step(isa, dtype):
    a, b = torch.randn(40).to(dtype), torch.randn(40).to(dtype)
    y, name = torch.zeros(40, dtype=dtype), DTYPES[dtype]
    apply(isa, (Step("mul", (0, 1), name), Step("add", (2, 0), name)), y, [a, b])
    assert torch.equal(y, a * b + a)


@isas
def test_masks_choose(isa):
    a, b = torch.randn(4, 33), torch.randn(33).expand(4, 33)
    y = torch.zeros(4, 33)
    steps = (Step("gt", (0, Const(0.25)), "f32"), Step("isnan", (1,), "f32"),
             Step("not", (3,), "bool"), Step("and", (2, 4), "bool"),
             Step("where", (5, 0, Const(-math.inf)), "f32"))  # fmt: skip
    apply(isa, steps, y, [a, b])
    assert torch.equal(y, torch.where(a > 0.25, a, -math.inf))


@isas
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool], ids=str)
def test_fills_need_no_operand(isa, dtype):
    y = torch.zeros(3, 21, dtype=dtype)
    apply(isa, (Step("cast", (Const(1),), DTYPES[dtype]),), y, [])
    assert torch.equal(y, torch.ones(3, 21, dtype=dtype))


@isas
@pytest.mark.parametrize("rows", [1, 7, 16, 33])
@pytest.mark.parametrize("cols", [1, 9, 16, 31, 64])
def test_transpose(isa, rows, cols):
    x = guarded(torch.randn(2, 3, cols, rows))
    y = guarded(torch.zeros(2, 3, rows, cols))
    plane = rows * cols * 4
    units = 6 * -(-rows // isa.lanes(f32))
    run_kernel(TransposeSpec(), isa, units, 2, n1=3, rows=rows, cols=cols,
               x=x, x_0=3 * plane, x_1=plane, x_col=4 * rows,
               y=y, y_0=3 * plane, y_1=plane, y_row=4 * cols)  # fmt: skip
    assert torch.equal(y, x.transpose(2, 3))


def test_every_chain_has_its_own_name():
    chains = {GELU_OF_SUM, Chain(GELU_OF_SUM.inputs, GELU_OF_SUM.steps[:1]), Chain(())}
    accesses = ("full", "scalar", "strided", "channel")
    chains |= {Chain((Input(d, a),)) for d in DTYPES.values() for a in accesses}
    specs = {ElementwiseSpec(c, r, o) for c in chains for r in (1, 2) for o in ("full", "strided")
             if c.inputs}  # fmt: skip
    assert len({spec.name for spec in specs}) == len(specs)
