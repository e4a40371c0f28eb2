"""Vector mathematics: every operation a chain can contain.

``OPS[name](k, *vectors)`` emits one operation on vectors (or scalars) of one type. Errors are
stated in ulp in each function's docstring and held by tests/test_vmath.py.
"""

from __future__ import annotations

from collections.abc import Callable

from torch_aio.codegen.types import Value
from torch_aio.codegen.vmath import arithmetic as a
from torch_aio.codegen.vmath import division as d
from torch_aio.codegen.vmath import error as r
from torch_aio.codegen.vmath import exponential as e
from torch_aio.codegen.vmath import logarithm as l
from torch_aio.codegen.vmath import trigonometry as t

LOGICAL = frozenset({"and", "or", "xor", "not"})
"""Operations on truth values: operands of other types are compared with zero first."""
COMPARISONS = (
    frozenset({"eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite"}) | LOGICAL
)
"""Operations that yield bool."""

ARITHMETIC = frozenset(
    "add sub mul div max min clamp relu neg abs sign sqrt rsqrt reciprocal floor ceil trunc round "
    "leaky_relu hardswish hardsigmoid where trunc_divide".split()
)
"""Operations that are right for every float type; the others are for f32."""

OPS: dict[str, Callable[..., Value]] = {
    "add": a.binary("add"),
    "sub": a.binary("sub"),
    "mul": a.binary("mul"),
    "div": a.divide,
    "max": a.maximum,
    "min": a.minimum,
    "clamp": a.clamp,
    "relu": a.relu,
    "neg": a.negate,
    "abs": a.absolute,
    "sign": a.sign,
    "sqrt": a.sqrt,
    "rsqrt": a.rsqrt,
    "reciprocal": a.reciprocal,
    "floor": a.unary("llvm.floor"),
    "ceil": a.unary("llvm.ceil"),
    "trunc": a.unary("llvm.trunc"),
    "round": a.unary("llvm.roundeven"),
    "leaky_relu": a.leaky_relu,
    "hardswish": a.hardswish,
    "hardsigmoid": a.hardsigmoid,
    "where": a.where,
    "fmod": d.fmod,
    "remainder": d.remainder,
    "floor_divide": d.floor_divide,
    "trunc_divide": d.trunc_divide,
    "exp": e.exp,
    "exp2": e.exp2,
    "expm1": e.expm1,
    "sigmoid": e.sigmoid,
    "silu": e.silu,
    "tanh": e.tanh,
    "mish": e.mish,
    "elu": e.elu,
    "log": l.log,
    "log2": l.log2,
    "log10": l.log10,
    "log1p": l.log1p,
    "softplus": l.softplus,
    "pow": l.power,
    "sin": t.sin,
    "cos": t.cos,
    "erf": r.erf,
    "gelu": r.gelu,
    "gelu_tanh": r.gelu_tanh,
    "eq": a.compare("eq"),
    "ne": a.compare("ne"),
    "lt": a.compare("lt"),
    "le": a.compare("le"),
    "gt": a.compare("gt"),
    "ge": a.compare("ge"),
    "isnan": a.isnan,
    "isinf": a.isinf,
    "isfinite": a.isfinite,
    "and": a.binary("and"),
    "or": a.binary("or"),
    "xor": a.binary("xor"),
    "not": a.invert,
    "bit_and": a.binary("and"),
    "bit_or": a.binary("or"),
    "bit_xor": a.binary("xor"),
    "bit_not": a.invert,
}
