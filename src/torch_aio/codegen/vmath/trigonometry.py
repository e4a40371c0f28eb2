"""Sine and cosine; f32 vectors.

Up to 1e5 the argument is reduced in f32 with pi/2 in three parts; a vector with a larger lane takes
a scalar loop with 256 bits of 2/pi (M. Payne, R. Hanek), so every finite argument is right.
"""

from __future__ import annotations

import math

from torch_aio.codegen.builder import Builder
from torch_aio.codegen.types import Type, Value, f32, f64, i32, i64, vec
from torch_aio.codegen.vmath.exponential import MAGIC, copysign, fabs, horner

HALF_PI = (1.57079637050628662109375, -4.371138828673793e-08, -1.7151245100058819e-15)
TWO_OVER_PI = 0xA2F9836E4E441529FC2757D1F534DDC0DB6295993C439041FE5163ABDEBBC561
"""The first 256 bits of 2/pi after the point."""
SIN_TAIL = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
COS_TAIL = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
"""Cephes: sin r = r + r**3 tail(r*r), cos r = 1 - r*r/2 + r**4 tail(r*r) for |r| <= pi/4."""
LARGE = 1e5


def sin(k: Builder, x: Value) -> Value:
    """The sine, 1.5 ulp; NaN at infinity."""
    r, n = _reduce(k, x)
    return _quadrant(k, r, n)


def cos(k: Builder, x: Value) -> Value:
    """The cosine, 1.5 ulp; NaN at infinity."""
    r, n = _reduce(k, x)
    return _quadrant(k, r, k.op("add", n, k.const(n.type, 1)))


def _quadrant(k: Builder, r: Value, n: Value) -> Value:
    """sin(r + n pi/2)."""
    square = k.fmul(r, r)
    sine = k.fma(k.fmul(horner(k, SIN_TAIL, square), square), r, r)
    sine = copysign(k, sine, r)  # -0.0
    cosine = k.fma(horner(k, COS_TAIL, square), square, k.const(r.type, -0.5))
    cosine = k.fma(cosine, square, k.const(r.type, 1))
    one, two = k.const(n.type, 1), k.const(n.type, 2)
    value = k.select(k.icmp("ne", k.op("and", n, one), 0), cosine, sine)
    return k.select(k.icmp("ne", k.op("and", n, two), 0), k.fneg(value), value)


def _reduce(k: Builder, x: Value) -> tuple[Value, Value]:
    """``(r, n)`` with x = r + n pi/2 (n modulo 4), |r| <= pi/4."""
    lanes = x.type.lanes
    shifted = k.fma(x, k.const(x.type, 2 / math.pi), k.const(x.type, MAGIC))
    n, r = k.fsub(shifted, k.const(x.type, MAGIC)), x
    for part in HALF_PI:
        r = k.fma(n, k.const(x.type, -part), r)
    r = k.select(k.fcmp("oeq", n, k.const(x.type, 0)), x, r)  # keeps -0.0
    magnitude = fabs(k, x)
    far = k.fcmp("ogt", magnitude, k.const(x.type, LARGE))
    far = k.op("and", far, k.fcmp("olt", magnitude, k.const(x.type, math.inf)))
    number = k.bitcast(shifted, vec(i32, lanes))
    with k.when(k.any(far), carry=[r, number]) as w:
        slow_r, slow_n = _reduce_lanes(k, x)
        w.next = [k.select(far, slow_r, r), k.select(far, slow_n, number)]
    return w.v[0], w.v[1]


def _reduce_lanes(k: Builder, x: Value) -> tuple[Value, Value]:
    """``_reduce`` of finite numbers above 1e5, lane by lane through the stack."""
    lanes = max(x.type.lanes, 1)
    source, rest, turns = (k.alloca(4 * lanes) for _ in range(3))
    k.store(x, source)
    with k.loop(0, lanes) as l:
        at = k.mul(l.i, 4)
        r, n = _payne_hanek(k, k.load(f32, source, at))
        k.store(r, rest, at)
        k.store(n, turns, at)
    return k.load(x.type, rest), k.load(vec(i32, x.type.lanes), turns)


def _payne_hanek(k: Builder, x: Value) -> tuple[Value, Value]:
    """``(r, n)`` for one number, 2**16 < |x| < inf, from a 128-bit window of 2/pi."""
    i128, i256 = Type("i", 128), Type("i", 256)
    bits = k.cast(k.bitcast(x, i32), i64)
    exponent = k.op("and", k.op("lshr", bits, k.const(i64, 23)), k.const(i64, 255))
    mantissa = k.op("or", k.op("and", bits, k.const(i64, 0x7FFFFF)), k.const(i64, 0x800000))
    # x / (2 pi) = mantissa * 2**(exponent - 152) * (2 / pi): drop the bits that give whole turns
    down = k.op("sub", k.const(i64, 128 + 152), exponent)
    window = k.cast(k.op("lshr", k.const(i256, TWO_OVER_PI), k.cast(down, i256)), i128)
    turn = k.op("mul", window, k.cast(mantissa, i128))
    top = k.cast(k.op("lshr", turn, k.const(i128, 64)), i64)
    n = k.op("lshr", k.op("add", top, k.const(i64, 1 << 61)), k.const(i64, 62))
    fraction = k.op("sub", top, k.op("shl", n, k.const(i64, 62)))
    r = k.fmul(k.cast(fraction, f64), k.const(f64, math.pi / 2 * 2.0**-62))
    negative = k.fcmp("olt", x, k.const(f32, 0))
    r = k.select(negative, k.fneg(r), r)
    n = k.select(negative, k.op("sub", k.const(i64, 0), n), n)
    return k.cast(r, f32), k.cast(n, i32)
