"""Division with remainder as torch defines it: f32 vectors, integers by a constant."""

from __future__ import annotations

import math

from torch_aio.codegen.builder import Builder
from torch_aio.codegen.types import Value, f32, f64
from torch_aio.codegen.vmath.arithmetic import is_constant
from torch_aio.codegen.vmath.exponential import copysign, fabs


def fmod(k: Builder, a: Value, b: Value) -> Value:
    """The remainder with the sign of ``a``, exact; NaN for b = 0 or infinite a."""
    if not a.type.is_float:
        _require_constant(b)
        return k.op("srem", a, b)
    if a.type.bits == 64:
        raise TypeError("fmod of float64")
    x, y = k.cast(a, f64), k.cast(b, f64)
    quotient = k.call("llvm.trunc", x.type, [k.fdiv(x, y)])
    r = k.fma(k.fneg(quotient), y, x)
    bound = fabs(k, y)
    with k.when(k.any(k.fcmp("oge", fabs(k, r), bound)), carry=[r]) as w:
        with k.loop(0, 7, carry=[r]) as l:  # each turn takes 52 bits off a quotient of up to 277
            q = k.call("llvm.trunc", x.type, [k.fdiv(l.v[0], y)])
            l.next = [k.fma(k.fneg(q), y, l.v[0])]
        w.next = l.v
    r = w.v[0]
    crossed = k.fcmp("olt", k.fmul(r, x), k.const(x.type, 0))  # the quotient was rounded up
    r = k.select(crossed, k.fadd(r, copysign(k, bound, x)), r)
    small = k.fcmp("olt", fabs(k, a), fabs(k, b))
    return k.select(small, a, copysign(k, k.cast(r, f32), a))


def remainder(k: Builder, a: Value, b: Value) -> Value:
    """The remainder with the sign of ``b``, as Python's ``%``."""
    r = fmod(k, a, b)
    if not a.type.is_float:
        zero = k.const(a.type, 0)
        other = k.op("and", k.icmp("ne", r, 0), k.icmp("slt", k.op("xor", r, b), 0))
        return k.op("add", r, k.select(other, b, zero))
    zero = k.const(a.type, 0)
    other = k.op("xor", k.fcmp("olt", b, zero), k.fcmp("olt", r, zero))
    other = k.op("and", other, k.fcmp("une", r, zero))
    return k.select(other, k.fadd(r, b), r)


def floor_divide(k: Builder, a: Value, b: Value) -> Value:
    """The quotient rounded down, of floats in torch's own steps."""
    if not a.type.is_float:
        r = fmod(k, a, b)
        below = k.op("and", k.icmp("ne", r, 0), k.icmp("slt", k.op("xor", r, b), 0))
        one, zero = k.const(a.type, 1), k.const(a.type, 0)
        return k.op("sub", k.op("sdiv", a, b), k.select(below, one, zero))
    zero, one = k.const(a.type, 0), k.const(a.type, 1)
    modulus, ratio = fmod(k, a, b), k.fdiv(a, b)
    quotient = k.fdiv(k.fsub(a, modulus), b)
    lower = k.op("xor", k.fcmp("olt", b, zero), k.fcmp("olt", modulus, zero))
    lower = k.op("and", lower, k.fcmp("one", modulus, zero))
    quotient = k.select(lower, k.fsub(quotient, one), quotient)
    floor = k.call("llvm.floor", a.type, [quotient])
    up = k.fcmp("ogt", k.fsub(quotient, floor), k.const(a.type, 0.5))
    floor = k.select(up, k.fadd(floor, one), floor)
    floor = k.select(k.fcmp("oeq", quotient, zero), copysign(k, zero, ratio), floor)
    return k.select(k.fcmp("oeq", b, zero), ratio, floor)


def trunc_divide(k: Builder, a: Value, b: Value) -> Value:
    """The quotient rounded towards zero."""
    if a.type.is_float:
        return k.call("llvm.trunc", a.type, [k.fdiv(a, b)])
    _require_constant(b)
    return k.op("sdiv", a, b)


def _require_constant(b: Value) -> None:
    """Integer division by zero ends the process: only constants divide."""
    if not is_constant(b) or math.isclose(int(b.text.split()[-1].rstrip(")")), 0):
        raise TypeError("integer division by a divisor that is not a constant other than 0")
