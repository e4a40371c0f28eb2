"""Arithmetic, rounding, minimum and maximum, comparisons, and activations made of these."""

from __future__ import annotations

from collections.abc import Callable

from torch_aio.codegen.builder import Builder
from torch_aio.codegen.types import Value


def is_constant(value: Value) -> bool:
    """Whether a value is a constant of the code (then it is not NaN)."""
    return not value.text.startswith("%")


def binary(instruction: str) -> Callable[[Builder, Value, Value], Value]:
    """An instruction that floats spell with an f."""

    def emit(k: Builder, a: Value, b: Value) -> Value:
        return k.op(("f" + instruction) if a.type.is_float else instruction, a, b)

    return emit


def unary(intrinsic: str) -> Callable[[Builder, Value], Value]:
    """A float intrinsic that leaves integers alone."""

    def emit(k: Builder, x: Value) -> Value:
        return k.call(intrinsic, x.type, [x]) if x.type.is_float else x

    return emit


def _extreme(float_test: str, integer: str) -> Callable[[Builder, Value, Value], Value]:
    def emit(k: Builder, a: Value, b: Value) -> Value:
        if not a.type.is_float:
            return k.call(integer, a.type, [a, b])
        if is_constant(b):
            return k.select(k.fcmp(float_test, b, a), b, a)
        value = k.select(k.fcmp(float_test, a, b), a, b)
        return value if is_constant(a) else k.select(k.fcmp("uno", a, a), a, value)

    return emit


maximum = _extreme("ogt", "llvm.smax")
minimum = _extreme("olt", "llvm.smin")


def clamp(k: Builder, x: Value, low: Value, high: Value) -> Value:
    """``min(max(x, low), high)``; NaN stays NaN."""
    return minimum(k, maximum(k, x, low), high)


def relu(k: Builder, x: Value) -> Value:
    """``max(x, 0)``."""
    return maximum(k, x, k.const(x.type, 0))


def negate(k: Builder, x: Value) -> Value:
    """``-x``."""
    return k.fneg(x) if x.type.is_float else k.op("sub", k.const(x.type, 0), x)


def absolute(k: Builder, x: Value) -> Value:
    """``|x|``; the smallest integer stays itself, as in eager."""
    if x.type.is_float:
        return k.call("llvm.fabs", x.type, [x])
    return k.select(k.icmp("slt", x, 0), negate(k, x), x)


def sign(k: Builder, x: Value) -> Value:
    """-1, 0 or 1; 0 for NaN, as eager."""
    zero, one = k.const(x.type, 0), k.const(x.type, 1)
    less, more = (
        (k.fcmp("olt", x, zero), k.fcmp("ogt", x, zero))
        if x.type.is_float
        else (k.icmp("slt", x, 0), k.icmp("sgt", x, 0))
    )
    return k.select(more, one, k.select(less, k.const(x.type, -1), zero))


def sqrt(k: Builder, x: Value) -> Value:
    """The square root, rounded right."""
    return k.call("llvm.sqrt", x.type, [x])


def rsqrt(k: Builder, x: Value) -> Value:
    """1 / sqrt(x), 1 ulp."""
    return k.fdiv(k.const(x.type, 1), sqrt(k, x))


def reciprocal(k: Builder, x: Value) -> Value:
    """1 / x, rounded right."""
    return k.fdiv(k.const(x.type, 1), x)


def divide(k: Builder, a: Value, b: Value) -> Value:
    """``a / b`` of floats."""
    return k.fdiv(a, b)


def leaky_relu(k: Builder, x: Value, slope: Value) -> Value:
    """x where x > 0, else slope x."""
    return k.select(k.fcmp("ogt", x, k.const(x.type, 0)), x, k.fmul(x, slope))


def _relu6_of_plus_3(k: Builder, x: Value) -> Value:
    shifted = k.fadd(x, k.const(x.type, 3))
    return clamp(k, shifted, k.const(x.type, 0), k.const(x.type, 6))


def hardswish(k: Builder, x: Value) -> Value:
    """x min(max(x + 3, 0), 6) / 6."""
    return k.fdiv(k.fmul(x, _relu6_of_plus_3(k, x)), k.const(x.type, 6))


def hardsigmoid(k: Builder, x: Value) -> Value:
    """min(max(x + 3, 0), 6) / 6."""
    return k.fdiv(_relu6_of_plus_3(k, x), k.const(x.type, 6))


def compare(predicate: str) -> Callable[[Builder, Value, Value], Value]:
    """A comparison that yields i1; false on NaN except ``ne``."""

    def emit(k: Builder, a: Value, b: Value) -> Value:
        if a.type.is_float:
            return k.fcmp(("u" if predicate == "ne" else "o") + predicate, a, b)
        signless = predicate in ("eq", "ne")
        unsigned = a.type.bits == 1
        return k.icmp(predicate if signless else ("u" if unsigned else "s") + predicate, a, b)

    return emit


def invert(k: Builder, x: Value) -> Value:
    """The bits of an integer (or bool) inverted."""
    return k.op("xor", x, k.const(x.type, 1 if x.type.bits == 1 else -1))


def isnan(k: Builder, x: Value) -> Value:
    """Whether x is NaN."""
    return k.fcmp("uno", x, x)


def isinf(k: Builder, x: Value) -> Value:
    """Whether x is infinite."""
    return k.fcmp("oeq", absolute(k, x), k.const(x.type, float("inf")))


def isfinite(k: Builder, x: Value) -> Value:
    """Whether x is neither infinite nor NaN."""
    return k.fcmp("olt", absolute(k, x), k.const(x.type, float("inf")))


def where(k: Builder, mask: Value, a: Value, b: Value) -> Value:
    """``a`` where ``mask``, else ``b``."""
    return k.select(mask, a, b)
