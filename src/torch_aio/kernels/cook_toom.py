"""Cook-Toom: matrices of minimal filtering F(m, r), exact; and how a kernel multiplies by them.

    y = A^T [(G g) * (B^T d)]        m outputs of an r-tap filter g from m + r - 1 inputs d

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015. In two dimensions each
matrix is applied to columns, then to rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import torch

from torch_aio.codegen.builder import Builder
from torch_aio.codegen.types import Value
from torch_aio.kernels.padding import padded

Matrix = tuple[tuple[Fraction, ...], ...]

TAPS = 3
POINTS: dict[int, dict[int, tuple[Fraction, ...]]] = {
    1: {
        2: (Fraction(0), Fraction(1), Fraction(-1)),
        4: (Fraction(0), Fraction(3, 4), Fraction(-3, 4), Fraction(3, 2), Fraction(-3, 2)),
    },
    2: {2: (Fraction(0), Fraction(1))},
}
"""Finite points by stride (for 2: of the even inputs) and outputs; the last one is infinity.

With +-3/4 and +-3/2 the error of F(4, 3) is a quarter of that with the usual +-1 and +-2 (64
channels of 56x56: 2.0e-6 against 7.9e-6). F(6, 3) gains nothing: at its best points, +-5/8, +-1 and
+-5/3, the error is 5e-6, and 64 to 256 channels of 224x224 to 56x56 take 0.95 to 1.15 of the time
of F(4, 3) hot, 1.0 to 1.2 cold (Zen 5). Three outputs of stride 2 take the time of two hot, and 1.2
to 1.7 of it cold."""


@dataclass(frozen=True)
class Filtering:
    """The matrices of F(outputs, 3): ``b`` is B^T, ``g`` is G, ``a`` is A^T."""

    b: Matrix
    g: Matrix
    a: Matrix


@cache
def filtering(outputs: int, stride: int = 1) -> Filtering:
    """F(outputs, 3) of stride 1 or 2.

    Stride 2 is two filters: F(outputs, 2) of the even inputs with the outer taps, and the odd
    inputs times the middle tap.
    """
    if stride == 1:
        return _minimal(TAPS, POINTS[stride][outputs])
    even, zero, one = _minimal(TAPS - 1, POINTS[stride][outputs]), Fraction(0), Fraction(1)
    size = taps_of(outputs, stride)
    odd = [tuple(Fraction(int(i == 2 * n + 1)) for i in range(size)) for n in range(outputs)]
    b = [tuple(x for v in row for x in (v, zero))[:size] for row in even.b]
    g = [(first, zero, last) for first, last in even.g]
    a = [(*row, *(Fraction(int(n == r)) for n in range(outputs))) for r, row in enumerate(even.a)]
    return Filtering((*b, *odd), (*g, *[(zero, one, zero)] * outputs), tuple(a))


def _minimal(taps: int, points: Sequence[Fraction]) -> Filtering:
    """F(m, taps) at finite ``points`` and infinity; rows of B^T are monic polynomials."""
    outputs, b, g = len(points) + 2 - taps, [], []
    for p in points:
        others = [q for q in points if q != p]
        b.append((*_with_roots(others), Fraction(0)))
        scale = math.prod(p - q for q in others)
        g.append(tuple(p**tap / scale for tap in range(taps)))
    b.append(_with_roots(points))
    g.append(tuple(Fraction(int(tap == taps - 1)) for tap in range(taps)))
    a = tuple(
        (*(p**row for p in points), Fraction(int(row == outputs - 1))) for row in range(outputs)
    )
    return Filtering(tuple(b), tuple(g), a)


def taps_of(outputs: int, stride: int) -> int:
    """Inputs that F(outputs, 3) of a stride reads, and products it takes."""
    return stride * (outputs - 1) + TAPS


@dataclass(frozen=True)
class PackWinograd:
    """[OC, IC, 3, 3] -> G w G^T as [panels][taps^2][IC][width], zeros where a dimension pads.

    ``outputs``: m of F(m x m, 3 x 3), taps = stride * (m - 1) + 3; ``block``: channels a block of
    the input; ``width``: output channels a panel. Computed in fp64 and rounded once.
    """

    outputs: int
    stride: int
    block: int
    width: int

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        """The packed weight."""
        matrix = filtering(self.outputs, self.stride).g
        g = torch.tensor([[float(v) for v in row] for row in matrix], dtype=torch.float64)
        both = torch.kron(g, g)
        rows, columns = weight.shape[0], weight.shape[1]
        whole = padded(weight, {0: rows + -rows % self.width, 1: columns + -columns % self.block})
        panels = whole.flatten(2).unflatten(0, (-1, self.width))
        shape = (len(panels), len(both), panels.shape[2], self.width)
        packed = torch.empty(shape, dtype=torch.float32)
        for source, target in zip(panels, packed, strict=True):  # one panel stays in cache
            target.copy_(torch.einsum("ot,wct->ocw", both, source.double()))
        return packed


def multiply(k: Builder, matrix: Matrix, values: Sequence[Value]) -> list[Value]:
    """``matrix @ values``, unrolled.

    Columns that differ by signs only (+-p of A^T) are added and subtracted first; rows of which one
    is the even minus the odd part of the other (+-p of B^T) share both parts.
    """
    columns = list(zip(*matrix, strict=True))
    folded, terms, j = [], [], 0
    while j < len(columns):
        left, right = columns[j], columns[j + 1] if j + 1 < len(columns) else None
        if right and left != right and [abs(x) for x in left] == [abs(x) for x in right]:
            folded += [_half(left, right, 1), _half(left, right, -1)]
            terms += [k.fadd(values[j], values[j + 1]), k.fsub(values[j], values[j + 1])]
            j += 2
        else:
            folded.append(left)
            terms.append(values[j])
            j += 1
    return _rows(k, list(zip(*folded, strict=True)), terms)


def _rows(k: Builder, rows: list[tuple[Fraction, ...]], values: list[Value]) -> list[Value]:
    results: list[Value] = []
    while len(results) < len(rows):
        row = rows[len(results)]
        following = rows[len(results) + 1] if len(results) + 1 < len(rows) else row
        even, odd = _half(row, following, 1), _half(row, following, -1)
        if any(even) and any(odd) and not any(e and o for e, o in zip(even, odd, strict=True)):
            scale = [o for o in odd if o][-1]
            base = _combination(k, even, values)
            part = _combination(k, [o / scale for o in odd], values)
            results += [_plus(k, base, part, scale), _plus(k, base, part, -scale)]
        else:
            results.append(_combination(k, row, values))
    return results


def _combination(k: Builder, row: Sequence[Fraction], values: Sequence[Value]) -> Value:
    """``sum(row * values)``, beginning with a coefficient of one where there is one."""
    used = sorted(((c, v) for c, v in zip(row, values, strict=True) if c), key=lambda t: t[0] != 1)
    (first, total), *rest = used
    if first != 1:
        total = k.fmul(total, k.const(total.type, float(first)))
    for coefficient, value in rest:
        total = _plus(k, total, value, coefficient)
    return total


def _plus(k: Builder, total: Value, value: Value, coefficient: Fraction) -> Value:
    if abs(coefficient) == 1:
        return k.fadd(total, value) if coefficient > 0 else k.fsub(total, value)
    return k.fma(value, k.const(value.type, float(coefficient)), total)


def _half(a: Sequence[Fraction], b: Sequence[Fraction], sign: int) -> tuple[Fraction, ...]:
    return tuple((x + sign * y) / 2 for x, y in zip(a, b, strict=True))


def _with_roots(roots: Sequence[Fraction]) -> tuple[Fraction, ...]:
    """Coefficients of the monic polynomial with these roots, the constant first."""
    polynomial = [Fraction(1)]
    for root in roots:
        shifted, whole = [Fraction(0), *polynomial], [*polynomial, Fraction(0)]
        polynomial = [s - root * c for s, c in zip(shifted, whole, strict=True)]
    return tuple(polynomial)
