"""Vector mathematics: errors in ulp as stated, special values as eager's."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from torch.nn import functional

from kernel_runner import ISAS, run_kernel
from torch_aio.codegen.isa import NEON
from torch_aio.codegen.jit import Jit
from torch_aio.codegen.vmath import COMPARISONS, OPS
from torch_aio.codegen.vmath.exponential import exp_weight
from torch_aio.kernels.chain import DTYPES, Chain, Const, Input, Step
from torch_aio.kernels.elementwise import ElementwiseSpec
from torch_aio.kernels.spec import generate

SAMPLES = 1 << 14
SPECIAL = torch.tensor([
    math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-45, -1e-45, 1e-40, -1e-40, 1.2e-38, 3.4e38,
    -3.4e38, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.0, -3.0, 5.9, 6.1, 1e-8, -1e-8, 20.0,
    -20.0, 88.7, 88.8,
    -87.3, -87.4, -88.8, -103.9, -104.1, 100.0, -100.0, 1e5, -1e5, 1e6, 8388609.0, 1e15, -1e30,
    0.99999994, 1.0000001, 2.0, 4.0, -2.0, 7.0,
])  # fmt: skip

# name: (eager, lowest and highest argument, the most ulp)
UNARY = {
    "exp": (torch.exp, (-104, 89), 1.5),
    "exp2": (torch.exp2, (-149, 128), 1.5),
    "expm1": (torch.expm1, (-20, 89), 2),
    "log": (torch.log, (0, 1e4), 1.5),
    "log1p": (torch.log1p, (-0.999, 100), 2),
    "log2": (torch.log2, (0, 10), 2),
    "log10": (torch.log10, (0, 10), 2),
    "sqrt": (torch.sqrt, (0, 1e6), 0.5),
    "rsqrt": (torch.rsqrt, (1e-3, 1e6), 1.5),
    "reciprocal": (torch.reciprocal, (-10, 10), 0.5),
    "tanh": (torch.tanh, (-10, 10), 2.5),
    "erf": (torch.erf, (-5, 5), 1.2),
    "sigmoid": (torch.sigmoid, (-80, 30), 2.5),
    "silu": (functional.silu, (-80, 30), 3.5),
    "mish": (functional.mish, (-30, 30), 5),
    "sin": (torch.sin, (-1e5, 1e5), 2),
    "cos": (torch.cos, (-1e5, 1e5), 2),
    "hardswish": (functional.hardswish, (-4, 8), 2),
    "hardsigmoid": (functional.hardsigmoid, (-4, 4), 1.5),
    "relu": (torch.relu, (-5, 5), 0),
    "abs": (torch.abs, (-5, 5), 0),
    "neg": (torch.neg, (-5, 5), 0),
    "sign": (torch.sign, (-5, 5), 0),
    "floor": (torch.floor, (-5, 5), 0),
    "ceil": (torch.ceil, (-5, 5), 0),
    "trunc": (torch.trunc, (-5, 5), 0),
    "round": (torch.round, (-5, 5), 0),
}
# error over max|reference|, in eps: their tails have no relative error worth stating
ABSOLUTE = {
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
}
PARAMETERS = {
    "leaky_relu": ((0.1,), lambda x: functional.leaky_relu(x, 0.1)),
    "elu": ((1.5, 1.0, 1.0), lambda x: functional.elu(x, 1.5)),
    "softplus": ((2.0, 20.0), lambda x: functional.softplus(x, 2.0)),
    "clamp": ((-1.0, 6.0), lambda x: x.clamp(-1.0, 6.0)),
    "max": ((0.5,), lambda x: x.clamp_min(0.5)),
    "min": ((0.5,), lambda x: x.clamp_max(0.5)),
    "pow": ((1.7,), lambda x: x.pow(1.7)),
    "fmod": ((3.0,), lambda x: x.fmod(3.0)),
    "remainder": ((-3.0,), lambda x: x.remainder(-3.0)),
    "floor_divide": ((3.0,), lambda x: x.floor_divide(3.0)),
    "trunc_divide": ((3.0,), lambda x: torch.div(x, 3.0, rounding_mode="trunc")),
}
BINARY = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "pow": torch.pow,
    "max": torch.maximum, "min": torch.minimum, "fmod": torch.fmod,
    "remainder": torch.remainder, "floor_divide": torch.floor_divide,
    "eq": torch.eq, "ne": torch.ne, "lt": torch.lt, "le": torch.le, "gt": torch.gt, "ge": torch.ge,
    "and": torch.logical_and, "or": torch.logical_or, "xor": torch.logical_xor,
}  # fmt: skip
TESTS = {"isnan": torch.isnan, "isinf": torch.isinf, "isfinite": torch.isfinite,
         "not": torch.logical_not}  # fmt: skip
INTEGER = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "max": torch.maximum,
    "min": torch.minimum, "bit_and": torch.bitwise_and, "bit_or": torch.bitwise_or,
    "bit_xor": torch.bitwise_xor, "eq": torch.eq, "lt": torch.lt, "ge": torch.ge,
}  # fmt: skip
INTEGER_CONST = {
    "remainder": torch.remainder, "fmod": torch.fmod, "floor_divide": torch.floor_divide,
    "trunc_divide": lambda x, n: torch.div(x, n, rounding_mode="trunc"),
}  # fmt: skip
INTEGER_UNARY = {
    "neg": torch.neg,
    "abs": torch.abs,
    "sign": torch.sign,
    "bit_not": torch.bitwise_not,
}

isas = pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)


def compute(isa, op, *operands, consts=()):
    """``op`` of whole tensors through an elementwise kernel."""
    inputs = tuple(Input(DTYPES[x.dtype], "full") for x in operands)
    args = (*range(len(inputs)), *map(Const, consts))
    chain = Chain(inputs, (Step(op, args, inputs[0].dtype),))
    dtype = torch.bool if op in COMPARISONS else operands[0].dtype
    y = torch.empty(operands[0].shape, dtype=dtype)
    named = {f"x{j}": x for j, x in enumerate(operands)}
    spec = ElementwiseSpec(chain, 1)
    run_kernel(spec, isa, 1, n0=y.numel(), cols=y.numel(), y=y, **named)
    return y


def ulps(y, reference):
    """The largest error in units of the last place of the reference."""
    finite = torch.isfinite(y) & (reference.abs() < 3.4e38)
    y, exact = y[finite].double().numpy(), reference[finite].numpy()
    spacing = np.spacing(np.maximum(np.abs(exact.astype(np.float32)), np.float32(1.2e-38)))
    return float(np.max(np.abs(y - exact) / spacing.astype(np.float64), initial=0))


def assert_same(y, eager, arguments, relative=4e-7):
    """NaN, infinities and signs of zero are eager's, other values near."""
    near = (y - eager).abs() <= relative * eager.abs() + 1e-44
    signs = (y.signbit() == eager.signbit()) | ((y != eager) & (y.abs() < 1e-44))
    same = (y.isnan() & eager.isnan()) | (((y == eager) | near) & signs)
    wrong = [tuple(t[i].item() for t in (*arguments, y, eager)) for i in (~same).nonzero()[:5, 0]]
    assert not wrong, wrong


def spread(low, high):
    """Arguments over a range, and many near zero."""
    x = torch.empty(SAMPLES).uniform_(low, high)
    x[::4] = (torch.randn(SAMPLES // 4) * 1e-2).clamp(low, high)
    x[1::4] = torch.randn(SAMPLES // 4).clamp(low, high)
    return x


@isas
@pytest.mark.parametrize("op", UNARY)
def test_error_in_ulp_is_as_stated(isa, op):
    eager, (low, high), most = UNARY[op]
    x = spread(low, high)
    assert ulps(compute(isa, op, x), eager(x.double())) <= most


@isas
@pytest.mark.parametrize("op", UNARY)
def test_special_values_equal_eager(isa, op):
    """Except tiny results: sigmoid and silu below -88 are zero here, denormals in eager."""
    eager = UNARY[op][0]
    x = SPECIAL[~((SPECIAL < -87) & (SPECIAL > -1e4))] if op in ("silu", "mish") else SPECIAL
    x = torch.cat([x, x.flip(0)])
    assert_same(compute(isa, op, x), eager(x), (x,))


@isas
@pytest.mark.parametrize("op", ABSOLUTE)
def test_gelu_is_near(isa, op):
    x = spread(-12, 12)
    exact = ABSOLUTE[op](x.double())
    assert (compute(isa, op, x) - exact).abs().max() <= 4 * 2**-23 * exact.abs().max()
    y = compute(isa, op, SPECIAL)
    assert y[[0, 2]].isnan().all()
    assert y[1] == math.inf
    assert torch.equal(y[3:5].signbit(), SPECIAL[3:5].signbit())


@isas
@pytest.mark.parametrize("op", PARAMETERS)
def test_operations_with_constants(isa, op):
    consts, eager = PARAMETERS[op]
    x = torch.cat([SPECIAL, spread(-8, 8)])
    assert_same(compute(isa, op, x, consts=consts), eager(x), (x,), relative=1e-6)


@isas
@pytest.mark.parametrize("op", BINARY)
def test_pairs_of_special_values_equal_eager(isa, op):
    n = len(SPECIAL)
    a, b = SPECIAL.repeat_interleave(n), SPECIAL.repeat(n)
    if op in ("fmod", "remainder"):  # eager's vectors lose remainders of quotients beyond f32
        kept = ~((a / b).isinf() & a.isfinite() & (b != 0))
        a, b = a[kept], b[kept]
    y, eager = compute(isa, op, a, b), BINARY[op](a, b)
    if op in COMPARISONS:
        assert torch.equal(y, eager)
    else:
        assert_same(y, eager, (a, b))


@isas
@pytest.mark.parametrize("op", ["pow", "fmod", "remainder", "floor_divide", "div"])
def test_pairs_of_random_values(isa, op):
    a, b = torch.rand(SAMPLES) * 100, torch.randn(SAMPLES) * 3
    exact = BINARY[op](a.double(), b.double()).float() if op == "pow" else BINARY[op](a, b)
    assert_same(compute(isa, op, a, b), exact, (a, b), relative=2e-7 if op == "pow" else 0)


@isas
@pytest.mark.parametrize("op", TESTS)
def test_questions(isa, op):
    assert torch.equal(compute(isa, op, SPECIAL), TESTS[op](SPECIAL))


@isas
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int8], ids=str)
def test_integers_wrap_as_eager(isa, dtype):
    limits = torch.iinfo(dtype)
    a = torch.randint(limits.min // 2, limits.max // 2, (37,), dtype=dtype) * 2
    a[:4] = torch.tensor([limits.min, limits.max, 0, -1], dtype=dtype)
    b = a.flip(0)
    for op, eager in INTEGER.items():
        assert torch.equal(compute(isa, op, a, b), eager(a, b)), op
    for op, eager in INTEGER_UNARY.items():
        assert torch.equal(compute(isa, op, a), eager(a)), op
    for op, eager in INTEGER_CONST.items():
        for n in (3, -7, 1, 16):
            assert torch.equal(compute(isa, op, a, consts=(n,)), eager(a, n)), (op, n)


def test_integer_division_by_a_tensor_or_zero_is_no_kernel():
    """It would end the process where eager raises."""
    a = torch.ones(4, dtype=torch.int64)
    with pytest.raises(TypeError, match="not a constant"):
        compute(ISAS[0], "floor_divide", a, a)
    with pytest.raises(TypeError, match="not a constant"):
        compute(ISAS[0], "remainder", a, consts=(0,))


@pytest.mark.parametrize("isa", [NEON], ids=lambda isa: isa.name)
def test_cross_compiled_code_calls_no_library(isa):
    """What LLVM cannot do inline it would call by name, and the JIT finds no such name."""
    compiler = Jit(isa, lambda _: None, lambda *_: None)
    consts = {name: len(args) for name, (args, _) in PARAMETERS.items()} | dict.fromkeys(BINARY, 0)
    for op in set(OPS) - {"where"}:
        operands = 2 if op in BINARY or op in INTEGER else 1
        dtype = "i32" if op.startswith("bit") else "f32"
        args = (*range(operands), *(Const(1) for _ in range(consts.get(op, 0))))
        chain = Chain((Input(dtype, "full"),) * operands, (Step(op, args, dtype),))
        assembly = compiler.assembly(generate(ElementwiseSpec(chain, 1), isa))
        assert not re.findall(r"\bbl\s+\S+", assembly), op


def test_every_operation_has_a_test():
    tested = {"where", "bit_and", "bit_or", "bit_xor", "bit_not"}
    tested |= set(UNARY) | set(ABSOLUTE) | set(PARAMETERS) | set(BINARY) | set(TESTS)
    assert set(OPS) == tested


@isas
def test_weights_of_a_softmax(isa, monkeypatch):
    """Relative to the largest weight, 1; the rest vanish, NaN stays."""
    monkeypatch.setitem(OPS, "exp_weight", exp_weight)
    x = torch.cat([torch.linspace(-90, 0, SAMPLES), torch.tensor([-1e30, -math.inf, math.nan])])
    y, reference = compute(isa, "exp_weight", x), x.double().exp()
    assert y[-1].isnan()
    assert y[-2] == y[-3] == 0
    assert (y - reference)[:-1].abs().max() < 1.5 * torch.finfo(torch.float32).eps
