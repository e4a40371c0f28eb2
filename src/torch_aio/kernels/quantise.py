"""Quantised rows of activations: bytes, and for each row the scale and what zero became.

    s = (max(x, 0) - min(x, 0)) / top;  z = round(-min(x, 0) / s);  q = round(x / s + z)

``top`` is the largest level: ``levels`` of the instruction set (``isa.Dot``), whose ``offset`` is
taken off before storing, or with two digits the largest number of two such bytes. A row of zeros
has s = 0; a row with a NaN or an infinity has s = NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.isa import Dot
from torch_aio.codegen.types import Value, f32, i8, i32
from torch_aio.ir.symbols import Int, ceil_div
from torch_aio.kernels import rows
from torch_aio.kernels.spec import KernelSpec

SMALLEST = 1e-30
"""Rows that span less are zeros: levels over the span would overflow."""


def row_words(k: Int) -> Int:
    """Words of four bytes from one quantised row of ``k`` terms to the next.

    An odd number of cache lines, so that neighbouring rows do not meet in one set.
    """
    return ceil_div(k, 128) * 32 + 16


def info_words(digits: int) -> int:
    """Words that are known of a row: s (f32), then the digits of z less the offset (i32)."""
    return 1 + digits


@dataclass(frozen=True)
class QuantiseRows(KernelSpec):
    """q, info = quantised rows of x, for ``inner`` * outer matrices of ``rows`` rows of ``k`` f32.

    x: rows ``x_row`` bytes apart, elements together. q: for each row ``digits`` (the higher first)
    of ``q_row`` bytes; what follows the last element is undefined. info: ``info_words`` a row,
    dense. Units: rows.
    """

    digits: int = 1
    params: ClassVar[Params] = Params(
        "x:ptr x_outer:int x_inner:int x_row:int q:ptr q_row:int info:ptr rows:int inner:int k:int"
    )

    @property
    def name(self) -> str:
        """``quantise_rows_f32_1``."""
        return f"quantise_rows_f32_{self.digits}"

    def emit(self, k: Builder) -> None:
        """Two sweeps over a row: its extremes, then its bytes."""
        p, levels = k.p, Levels(self.digits)
        with k.loop(k.begin, k.end) as unit:
            row, matrix = k.urem(unit.i, p.rows), k.udiv(unit.i, p.rows)
            outer, inner = k.udiv(matrix, p.inner), k.urem(matrix, p.inner)
            x = k.at(p.x, k.mul(p.x_outer, outer), k.mul(p.x_inner, inner), k.mul(p.x_row, row))
            scale, factor, zero = levels.parameters(k, *extremes(k, x, p.k))
            info = k.at(p.info, k.mul(unit.i, 4 * info_words(self.digits)))
            k.store(scale, info)
            for n, digit in enumerate(levels.digits_of(k, k.cast(zero, i32))):
                k.store(digit, info, 4 * (n + 1))
            q = k.at(p.q, k.mul(k.mul(p.q_row, self.digits), unit.i))
            levels.quantise(k, x, q, p.k, (factor, zero), p.q_row)


@dataclass(frozen=True)
class Levels:
    """The levels of ``digits`` bytes on an instruction set."""

    digits: int = 1

    def parameters(
        self, k: Builder, low: Value, high: Value, odd: Value
    ) -> tuple[Value, Value, Value]:
        """Scale, its inverse, and the level of zero, for these ``extremes``."""
        top, nothing = k.const(f32, self._top(k)), k.const(f32, 0)
        span = k.fsub(high, low)
        is_some = k.fcmp("ogt", span, k.const(f32, SMALLEST))
        scale = k.select(is_some, k.fdiv(span, top), nothing)
        factor = k.select(is_some, k.fdiv(top, span), nothing)
        zero = k.call("llvm.rint", f32, [k.fmul(k.fneg(low), factor)])
        return k.fadd(scale, odd), factor, self._clamped(k, zero)

    def digits_of(self, k: Builder, number: Value) -> list[Value]:
        """The digits of an i32 level, the higher first, less the offset."""
        dot, type_ = _dot(k), number.type
        digits = [number]
        if self.digits == 2:
            shift, low = k.const(type_, dot.levels.bit_length()), k.const(type_, dot.levels)
            digits = [k.op("lshr", number, shift), k.op("and", number, low)]
        return [k.op("sub", digit, k.const(type_, dot.offset)) for digit in digits]

    def quantise(
        self, k: Builder, x: Value, q: Value, count: Size, by: tuple[Value, Value],
        digit: Size = 0,
    ) -> None:  # fmt: skip
        """``count`` f32 at x to bytes at q, by (inverse scale, zero); digits ``digit`` apart.

        Up to a vector of bytes behind them is written too.
        """
        factors, zeros = (k.splat(value, k.isa.lanes(f32)) for value in by)

        def convert(column: Size, mask: Value | None, carried: list[Value]) -> list[Value]:
            level = self._clamped(k, k.fma(_load(k, x, column, mask), factors, zeros))
            number = k.cast(k.call("llvm.rint", level.type, [level]), i32)
            for n, part in enumerate(self.digits_of(k, number)):
                k.store(k.cast(part, i8), q, column, k.mul(digit, n))
            return carried

        rows.sweep(k, 0, count, convert)

    def _top(self, k: Builder) -> int:
        return int((_dot(k).levels + 1) ** self.digits) - 1

    def _clamped(self, k: Builder, level: Value) -> Value:
        """Within the levels; NaN becomes 0."""
        top, nothing = k.const(level.type, self._top(k)), k.const(level.type, 0)
        return _least(k, _most(k, level, nothing), top)


def _dot(k: Builder) -> Dot:
    assert k.isa.dot is not None, k.isa.name
    return k.isa.dot


def extremes(k: Builder, x: Value, count: Size) -> tuple[Value, Value, Value]:
    """min(x, 0), max(x, 0), and zero or, where an element is not finite, NaN."""
    vector, nothing = k.isa.vector(f32), k.const(k.isa.vector(f32), 0)

    def widen(column: Size, mask: Value | None, carried: list[Value]) -> list[Value]:
        value = _load(k, x, column, mask)
        low, high, odd = carried
        return [_least(k, value, low), _most(k, value, high), k.fma(value, nothing, odd)]

    found = rows.sweep(k, 0, count, widen, [k.const(vector, 0)] * 3)
    return (
        rows.fold(k, _least, found[0::3]),
        rows.fold(k, _most, found[1::3]),
        rows.fold(k, Builder.fadd, found[2::3]),
    )


def _load(k: Builder, x: Value, column: Size, mask: Value | None) -> Value:
    vector, place = k.isa.vector(f32), k.mul(column, 4)
    return k.masked_load(vector, mask, x, place) if mask else k.load(vector, x, place)


def _least(k: Builder, a: Value, b: Value) -> Value:
    return k.select(k.fcmp("olt", a, b), a, b)


def _most(k: Builder, a: Value, b: Value) -> Value:
    return k.select(k.fcmp("ogt", a, b), a, b)
