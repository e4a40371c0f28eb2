"""The exponential and what is made of it; f32 vectors, max errors in units in the last place (ulp).

Constants come first in every select: ``select(c > x, c, x)`` keeps a NaN in ``x`` and still is one
``vmaxps``. The polynomials are least-squares fits on Chebyshev nodes, rounded to f32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch_aio.codegen.builder import Builder
from torch_aio.codegen.types import Value, i16, i32, vec

LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = 0.693145751953125, 1.42860682030941723212e-6
"""ln 2 in two parts; the first has zeros at its end, so a multiple of it is exact."""
MAGIC = 12582912.0
"""1.5 * 2**23: adding it rounds to an integer that stands in the low bits of the sum."""
EXP_TAIL = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
            5.0000001201e-1)  # fmt: skip
"""exp(r) = 1 + r + r*r * tail(r) for |r| <= ln(2) / 2, highest power first (Cephes)."""

EXP2 = (1.326472731e-3, 9.671512991e-3, 5.550733581e-2, 2.402224243e-1, 6.931470037e-1, 1.0)
"""2**f for |f| <= 1/2 within 9.2e-8, exact at 0, highest power first."""


def horner(k: Builder, coefficients: Sequence[float], x: Value) -> Value:
    """The polynomial in ``x``, highest power first."""
    value = k.const(x.type, coefficients[0])
    for c in coefficients[1:]:
        value = k.fma(value, x, k.const(x.type, c))
    return value


def copysign(k: Builder, magnitude: Value, sign: Value) -> Value:
    """``magnitude`` with the sign of ``sign``."""
    return k.call("llvm.copysign", magnitude.type, [magnitude, sign])


def fabs(k: Builder, x: Value) -> Value:
    """``|x|``."""
    return k.call("llvm.fabs", x.type, [x])


def clamp_keeping_nan(k: Builder, x: Value, low: float, high: float) -> Value:
    """``x`` between two constants; NaN stays NaN."""
    a, b = k.const(x.type, low), k.const(x.type, high)
    x = k.select(k.fcmp("ogt", a, x), a, x)
    return k.select(k.fcmp("olt", b, x), b, x)


def _reduce(k: Builder, x: Value) -> tuple[Value, Value]:
    """``(r, n)`` with x = n ln 2 + r, |r| <= ln(2) / 2; ``n`` an i32."""
    integer = vec(i32, x.type.lanes)
    shifted = k.fma(x, k.const(x.type, LOG2_E), k.const(x.type, MAGIC))
    n = k.fsub(shifted, k.const(x.type, MAGIC))
    r = k.fma(n, k.const(x.type, -LN2_HIGH), x)
    r = k.fma(n, k.const(x.type, -LN2_LOW), r)
    return r, k.op("sub", k.bitcast(shifted, integer), k.const(integer, 0x4B400000))


def _power_of_two(k: Builder, n: Value, like: Value) -> Value:
    """2**n for -127 < n < 128."""
    biased = k.op("add", n, k.const(n.type, 127))
    return k.bitcast(k.op("shl", biased, k.const(n.type, 23)), like.type)


def _scaled(k: Builder, r: Value, n: Value) -> Value:
    """e**r * 2**n, in two factors because n reaches 128 and -151."""
    p = k.fma(horner(k, EXP_TAIL, r), k.fmul(r, r), r)
    p = k.fadd(p, k.const(r.type, 1))
    half = k.op("ashr", n, k.const(n.type, 1))
    rest = k.op("sub", n, half)
    return k.fmul(k.fmul(p, _power_of_two(k, half, r)), _power_of_two(k, rest, r))


def exp(k: Builder, x: Value) -> Value:
    """e**x, 1 ulp; overflows to inf, results below 1.2e-38 are right denormals (0.5 ulp more)."""
    return _scaled(k, *_reduce(k, clamp_keeping_nan(k, x, -105.0, 89.0)))


def exp2(k: Builder, x: Value) -> Value:
    """2**x, 1 ulp; extremes as ``exp``."""
    x = clamp_keeping_nan(k, x, -151.0, 129.0)
    shifted = k.fadd(x, k.const(x.type, MAGIC))
    fraction = k.fsub(x, k.fsub(shifted, k.const(x.type, MAGIC)))
    integer = vec(i32, x.type.lanes)
    n = k.op("sub", k.bitcast(shifted, integer), k.const(integer, 0x4B400000))
    return _scaled(k, k.fmul(fraction, k.const(x.type, math.log(2))), n)


def _exp_moderate(k: Builder, x: Value) -> Value:
    """e**x for -87 <= x <= 88: one factor of two less than ``exp``."""
    r, n = _reduce(k, x)
    p = k.fma(horner(k, EXP_TAIL, r), k.fmul(r, r), r)
    return k.fmul(k.fadd(p, k.const(x.type, 1)), _power_of_two(k, n, x))


def exp_magnitude(k: Builder, x: Value) -> Value:
    """e**x for x <= 0 (softmax), 1 ulp; results below 2.4e-38 are zero."""
    floor = k.const(x.type, -87.0)
    flushed = k.fcmp("olt", x, floor)
    value = _exp_moderate(k, k.select(k.fcmp("ogt", floor, x), floor, x))
    return k.select(flushed, k.const(x.type, 0), value)


def exp_weight(k: Builder, x: Value) -> Value:
    """e**x for x <= 0 where the largest weight is 1: within 1.5 eps of it, 0 at -inf; keeps NaN.

    The remainder of x / ln 2 is rounded once, which costs accuracy only where the weight is small.
    """
    power = k.fmul(x, k.const(x.type, LOG2_E))
    if k.isa.has_scale:
        n = k.call("llvm.roundeven", x.type, [power])
        return _scaled_by(k, horner(k, EXP2, k.fsub(power, n)), n)
    floor = k.const(x.type, -126.0)
    flushed = k.fcmp("olt", power, floor)
    power = k.select(k.fcmp("ogt", floor, power), floor, power)
    shifted = k.fadd(power, k.const(x.type, MAGIC))
    fraction = k.fsub(power, k.fsub(shifted, k.const(x.type, MAGIC)))
    integer = vec(i32, x.type.lanes)
    n = k.op("sub", k.bitcast(shifted, integer), k.const(integer, 0x4B400000))
    value = k.fmul(horner(k, EXP2, fraction), _power_of_two(k, n, x))
    return k.select(flushed, k.const(x.type, 0), value)


def _scaled_by(k: Builder, x: Value, n: Value) -> Value:
    """``x`` 2**n for whole numbers n, infinite ones too; an AVX-512 instruction."""
    name, mask = "llvm.x86.avx512.mask.scalef.ps.512", Value(i16, "-1")
    return k.call_exact(name, x.type, [x, n, x, mask, Value(i32, "4")])


def _one_plus_exp_negative(k: Builder, x: Value) -> Value:
    """1 + e**-x, inf below -88."""
    e = _exp_moderate(k, clamp_keeping_nan(k, k.fneg(x), -87.0, 88.0))
    e = k.select(k.fcmp("olt", x, k.const(x.type, -88.0)), k.const(x.type, math.inf), e)
    return k.fadd(k.const(x.type, 1), e)


def expm1(k: Builder, x: Value) -> Value:
    """e**x - 1, 1.5 ulp, exact in sign and for denormals."""
    bounded = clamp_keeping_nan(k, x, -105.0, 89.0)
    r, n = _reduce(k, bounded)
    q = k.fma(horner(k, EXP_TAIL, r), k.fmul(r, r), r)
    half = k.op("ashr", n, k.const(n.type, 1))
    first = _power_of_two(k, half, x)
    second = _power_of_two(k, k.op("sub", n, half), x)
    # (q + 1) * first * second - 1, with the product by `second` undone for the constant
    scale = k.fmul(first, second)
    near = k.fma(q, scale, k.fsub(scale, k.const(x.type, 1)))
    far = k.fmul(k.fmul(k.fadd(q, k.const(x.type, 1)), first), second)
    large = k.fcmp("ogt", bounded, k.const(x.type, 80))
    return copysign(k, k.select(large, far, near), x)


def sigmoid(k: Builder, x: Value) -> Value:
    """1 / (1 + e**-x), 2.5 ulp; 0 below -88."""
    return k.fdiv(k.const(x.type, 1), _one_plus_exp_negative(k, x))


def silu(k: Builder, x: Value) -> Value:
    """x / (1 + e**-x), 3 ulp; -0 below -88, NaN at -inf as eager."""
    return k.fdiv(x, _one_plus_exp_negative(k, x))


def tanh(k: Builder, x: Value) -> Value:
    """tanh x = e / (e + 2) with e = e**(2|x|) - 1; 2.5 ulp."""
    magnitude = fabs(k, x)
    limit = k.const(x.type, 10)
    bounded = k.select(k.fcmp("olt", limit, magnitude), limit, magnitude)
    r, n = _reduce(k, k.fadd(bounded, bounded))
    q = k.fma(horner(k, EXP_TAIL, r), k.fmul(r, r), r)
    scale = _power_of_two(k, n, x)
    e = k.fma(q, scale, k.fsub(scale, k.const(x.type, 1)))
    return copysign(k, k.fdiv(e, k.fadd(e, k.const(x.type, 2))), x)


def mish(k: Builder, x: Value) -> Value:
    """x tanh(log(1 + e**x)) = x w / (w + 2) with w = e (e + 2), e = e**x; 4 ulp."""
    limit = k.const(x.type, 30)
    e = exp(k, k.select(k.fcmp("olt", limit, x), limit, x))
    two = k.const(x.type, 2)
    w = k.fmul(e, k.fadd(e, two))
    return k.fmul(x, k.fdiv(w, k.fadd(w, two)))


def elu(k: Builder, x: Value, alpha: Value, scale: Value, input_scale: Value) -> Value:
    """scale x where x > 0, else scale alpha (e**(input_scale x) - 1)."""
    curve = k.fmul(k.fmul(expm1(k, k.fmul(x, input_scale)), alpha), scale)
    return k.select(k.fcmp("ogt", x, k.const(x.type, 0)), k.fmul(x, scale), curve)
