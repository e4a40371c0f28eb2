"""The error function and the two forms of GELU; f32 vectors."""

from __future__ import annotations

import math

from torch_aio.codegen.builder import Builder
from torch_aio.codegen.types import Value
from torch_aio.codegen.vmath.exponential import copysign, exp_magnitude, fabs, horner, tanh

ERF_NEAR = (-5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1,
            1.28379166e-1)  # fmt: skip
"""erf(x) = x + x * near(x*x) for |x| <= 0.921875 (N. Juffa)."""
ERF_FAR = (-1.72853470e-5, 3.83197126e-4, -3.88396438e-3, 2.42546219e-2, -1.06777877e-1,
           -6.34846687e-1, -1.28717512e-1)  # fmt: skip
"""erf(x) = 1 - exp(x * far(x) - x) for x > 0.921875 (N. Juffa)."""


def erf(k: Builder, x: Value) -> Value:
    """The error function, 1.2 ulp."""
    t, square = fabs(k, x), k.fmul(x, x)
    far = k.fma(horner(k, ERF_FAR, t), t, k.fneg(t))
    far = copysign(k, k.fsub(k.const(x.type, 1), exp_magnitude(k, far)), x)
    near = k.fma(horner(k, ERF_NEAR, square), x, x)
    return k.select(k.fcmp("ogt", t, k.const(x.type, 0.921875)), far, near)


def gelu(k: Builder, x: Value) -> Value:
    """x (1 + erf(x / sqrt 2)) / 2, 3 ulp; in the negative tail within 3 eps |x|."""
    half = k.fmul(x, k.const(x.type, 0.5))
    normal = erf(k, k.fmul(x, k.const(x.type, math.sqrt(0.5))))
    return k.fmul(half, k.fadd(k.const(x.type, 1), normal))


def gelu_tanh(k: Builder, x: Value) -> Value:
    """x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3))) / 2; errors as ``gelu``."""
    c = math.sqrt(2 / math.pi)
    inner = k.fma(k.fmul(x, x), k.const(x.type, 0.044715 * c), k.const(x.type, c))
    half = k.fmul(x, k.const(x.type, 0.5))
    return k.fmul(half, k.fadd(k.const(x.type, 1), tanh(k, k.fmul(x, inner))))
