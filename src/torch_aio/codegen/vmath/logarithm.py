"""Logarithms and powers; f32 vectors.

A power is computed in f64: y log2(x) reaches 150 and its absolute error is the relative one of the
result, so f32 would lose seven bits.
"""

from __future__ import annotations

import math
import struct

from torch_aio.codegen.builder import Builder
from torch_aio.codegen.types import Value, f32, f64, i1, i32, i64, vec
from torch_aio.codegen.vmath.exponential import (
    LN2_HIGH,
    LN2_LOW,
    LOG2_E,
    clamp_keeping_nan,
    exp,
    fabs,
    horner,
)

LOG_TAIL = (-0.12912163138, 0.14004637301, -0.12180018425, 0.14002121985, -0.16680759192,
            0.20010609925, -0.24999792874, 0.33333212137)  # fmt: skip
"""log(1 + f) = f - f*f/2 + f**3 tail(f) for |f| <= 1/3; fitted, 0.08 ulp."""
LOG10_2 = (0.301025390625, 4.6050389811952137e-6)
"""log10(2) in two parts, as ``LN2_HIGH`` and ``LN2_LOW``."""
TWO_THIRDS = 0x3F2AAAAB
SQRT_HALF_64 = 0x3FE6A09E667F3BCD


def _split(k: Builder, x: Value) -> tuple[Value, Value]:
    """``(f, e)`` with x = (1 + f) 2**e, f in [-1/3, 1/3], for normal or denormal x > 0."""
    integer = vec(i32, x.type.lanes)
    small = k.fcmp("olt", x, k.const(x.type, 1.17549435e-38))
    x = k.select(small, k.fmul(x, k.const(x.type, 2.0**23)), x)
    lift = k.select(small, k.const(x.type, -23), k.const(x.type, 0))
    bits = k.bitcast(x, integer)
    exponent = k.op("ashr", k.op("sub", bits, k.const(integer, TWO_THIRDS)), k.const(integer, 23))
    mantissa = k.op("sub", bits, k.op("shl", exponent, k.const(integer, 23)))
    f = k.fsub(k.bitcast(mantissa, x.type), k.const(x.type, 1))
    return f, k.fadd(k.cast(exponent, f32), lift)


def _log_near_one(k: Builder, f: Value) -> tuple[Value, Value]:
    """log(1 + f) as the sum ``(f, small)``."""
    square = k.fmul(f, f)
    tail = k.fmul(horner(k, LOG_TAIL, f), f)
    return f, k.fmul(square, k.fadd(tail, k.const(f.type, -0.5)))


def _log_times(k: Builder, f: Value, factor: float) -> Value:
    """``factor`` * log(1 + f); the factor in two parts, so that only the last addition rounds."""
    high, low = _log_near_one(k, f)
    rounded = struct.unpack("f", struct.pack("f", factor))[0]
    low = k.fmul(low, k.const(f.type, factor))
    low = k.fma(high, k.const(f.type, factor - rounded), low)
    return k.fma(high, k.const(f.type, factor), low)


def _at_the_ends(k: Builder, x: Value, y: Value) -> Value:
    """Put -inf at 0, NaN below, and x itself at inf and NaN."""
    zero, inf = k.const(x.type, 0), k.const(x.type, math.inf)
    y = k.select(k.fcmp("oeq", x, zero), k.const(x.type, -math.inf), y)
    y = k.select(k.fcmp("olt", x, zero), k.const(x.type, math.nan), y)
    return k.select(k.fcmp("ult", x, inf), k.select(k.fcmp("uno", x, x), x, y), x)


def log(k: Builder, x: Value) -> Value:
    """The natural logarithm, 1 ulp."""
    f, e = _split(k, x)
    high, low = _log_near_one(k, f)
    low = k.fma(e, k.const(x.type, LN2_LOW), low)
    return _at_the_ends(k, x, k.fma(e, k.const(x.type, LN2_HIGH), k.fadd(high, low)))


def log2(k: Builder, x: Value) -> Value:
    """The logarithm to base 2, 1.5 ulp, exact at powers of two."""
    f, e = _split(k, x)
    return _at_the_ends(k, x, k.fadd(e, _log_times(k, f, LOG2_E)))


def log10(k: Builder, x: Value) -> Value:
    """The logarithm to base 10, 1.5 ulp."""
    f, e = _split(k, x)
    high, low = LOG10_2
    small = k.fma(e, k.const(x.type, low), _log_times(k, f, 1 / math.log(10)))
    return _at_the_ends(k, x, k.fma(e, k.const(x.type, high), small))


def log1p(k: Builder, x: Value) -> Value:
    """log(1 + x), 2 ulp, from log of the rounded sum and what the rounding lost."""
    one = k.const(x.type, 1)
    total = k.fadd(one, x)
    lost = k.fdiv(k.fsub(x, k.fsub(total, one)), total)
    usual = k.fadd(log(k, total), lost)
    ends = k.op("or", k.fcmp("oeq", x, k.const(x.type, -1)), k.fcmp("oeq", total, one))
    plain = k.select(k.fcmp("oeq", total, one), x, k.const(x.type, -math.inf))
    infinite = k.fcmp("oeq", x, k.const(x.type, math.inf))
    return k.select(infinite, x, k.select(ends, plain, usual))


def softplus(k: Builder, x: Value, beta: Value, threshold: Value) -> Value:
    """log(1 + e**(beta x)) / beta, and x where beta x > threshold."""
    scaled = k.fmul(x, beta)
    curve = k.fdiv(log1p(k, exp(k, scaled)), beta)
    return k.select(k.fcmp("ogt", scaled, threshold), x, curve)


def _log2_f64(k: Builder, x: Value) -> Value:
    """log2 of f64 vectors that hold positive f32 numbers; relative error 2**-42."""
    wide = vec(i64, x.type.lanes)
    bits, shift = k.bitcast(x, wide), k.const(wide, 52)
    biased = k.op("lshr", k.op("add", bits, k.const(wide, (0x3FF << 52) - SQRT_HALF_64)), shift)
    m = k.op("sub", bits, k.op("shl", k.op("sub", biased, k.const(wide, 1023)), shift))
    m = k.bitcast(m, x.type)
    e = k.bitcast(k.op("or", biased, k.const(wide, 0x433 << 52)), x.type)
    e = k.fsub(e, k.const(x.type, 2.0**52 + 1023))
    one = k.const(x.type, 1)
    s = k.fdiv(k.fsub(m, one), k.fadd(m, one))
    series = horner(k, [2 * LOG2_E / (2 * n + 1) for n in range(8, -1, -1)], k.fmul(s, s))
    return k.fma(s, series, e)


def _exp2_f64(k: Builder, t: Value) -> Value:
    """2**t of f64 vectors; relative error 2**-38, extremes beyond those of f32."""
    t = clamp_keeping_nan(k, t, -300.0, 300.0)
    wide, magic = vec(i64, t.type.lanes), k.const(t.type, 1.5 * 2.0**52)
    shifted = k.fadd(t, magic)
    r = k.fmul(k.fsub(t, k.fsub(shifted, magic)), k.const(t.type, math.log(2)))
    p = horner(k, [1 / math.factorial(n) for n in range(9, -1, -1)], r)
    n = k.op("shl", k.op("add", k.bitcast(shifted, wide), k.const(wide, 1023)), k.const(wide, 52))
    return k.fmul(p, k.bitcast(n, t.type))


def power(k: Builder, x: Value, y: Value) -> Value:
    """x**y with the special cases of C's pow; 0.6 ulp."""
    zero, one, inf = (k.const(x.type, c) for c in (0, 1, math.inf))
    magnitude = fabs(k, x)
    logarithm = _log2_f64(k, k.cast(magnitude, f64))
    ends = k.select(k.fcmp("oeq", magnitude, zero), k.fneg(inf), magnitude)
    finite = k.op("and", k.fcmp("olt", magnitude, inf), k.fcmp("ogt", magnitude, zero))
    logarithm = k.select(finite, logarithm, k.cast(ends, f64))
    exponent = k.fmul(k.cast(y, f64), logarithm)
    unit = k.op("and", k.fcmp("oeq", magnitude, one), k.fcmp("ord", y, y))
    exponent = k.select(unit, k.const(exponent.type, 0), exponent)
    result = k.cast(_exp2_f64(k, exponent), f32)
    result = _signed(k, x, y, result)
    trivial = k.op("or", k.fcmp("oeq", x, one), k.fcmp("oeq", y, zero))
    return k.select(trivial, one, result)


def _signed(k: Builder, x: Value, y: Value, result: Value) -> Value:
    """The power of a negative base from that of its magnitude."""
    integer = vec(i32, x.type.lanes)
    negative = k.icmp("slt", k.bitcast(x, integer), 0)
    half = k.fmul(y, k.const(y.type, 0.5))
    whole = k.fcmp("oeq", k.call("llvm.trunc", y.type, [y]), y)
    halves = k.fcmp("oeq", k.call("llvm.trunc", y.type, [half]), half)
    odd = k.op("and", whole, k.op("xor", halves, k.const(vec(i1, x.type.lanes), 1)))
    result = k.select(k.op("and", negative, odd), k.fneg(result), result)
    inside = k.op("and", k.fcmp("olt", x, k.const(x.type, 0)),
                  k.fcmp("ogt", x, k.const(x.type, -math.inf)))  # fmt: skip
    invalid = k.op("and", inside, k.op("xor", whole, k.const(vec(i1, x.type.lanes), 1)))
    return k.select(invalid, k.const(x.type, math.nan), result)
