"""Quantised rows of activations: bytes, and for each row the scale and the number that zero became.

    s = (max(x, 0) - min(x, 0)) / levels;  z = round(-min(x, 0) / s);  q = round(x / s + z)

``levels`` and the ``offset`` that is taken off before storing are the instruction set's
(``isa.Dot``). A row of zeros has s = 0; a row with a NaN or an infinity has s = NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.isa import Dot
from torch_aio.codegen.types import Value, f32, i8, i32, vec
from torch_aio.ir.symbols import Int, ceil_div
from torch_aio.kernels import rows
from torch_aio.kernels.spec import KernelSpec

INFO_BYTES = 8
"""What is known of a row: s (f32) and z less the offset (i32)."""
SMALLEST = 1e-30
"""Rows that span less are zeros: levels over the span would overflow."""


def row_words(k: Int) -> Int:
    """Words of four bytes from one quantised row of ``k`` terms to the next.

    An odd number of cache lines, so that neighbouring rows do not meet in one set.
    """
    return ceil_div(k, 128) * 32 + 16


@dataclass(frozen=True)
class QuantiseRows(KernelSpec):
    """q, info = quantised rows of x, for ``inner`` * outer matrices of ``rows`` rows of ``k`` f32.

    x: rows ``x_row`` bytes apart, elements together. q: rows of ``row_words(k)`` words, dense;
    what follows the last element is undefined. info: ``INFO_BYTES`` a row, dense. Units: rows.
    """

    params: ClassVar[Params] = Params(
        "x:ptr x_outer:int x_inner:int x_row:int q:ptr q_row:int info:ptr rows:int inner:int k:int"
    )

    @property
    def name(self) -> str:
        """``quantise_rows_f32``."""
        return "quantise_rows_f32"

    def emit(self, k: Builder) -> None:
        """Two sweeps over a row: its extremes, then its bytes."""
        p = k.p
        with k.loop(k.begin, k.end) as unit:
            row, matrix = k.urem(unit.i, p.rows), k.udiv(unit.i, p.rows)
            outer, inner = k.udiv(matrix, p.inner), k.urem(matrix, p.inner)
            x = k.at(p.x, k.mul(p.x_outer, outer), k.mul(p.x_inner, inner), k.mul(p.x_row, row))
            scale, factor, zero = _parameters(k, *_extremes(k, x, p.k))
            info = k.at(p.info, k.mul(unit.i, INFO_BYTES))
            k.store(scale, info)
            k.store(k.cast(k.fsub(zero, k.const(f32, _dot(k).offset)), i32), info, 4)
            _quantise(k, x, k.at(p.q, k.mul(p.q_row, unit.i)), p.k, factor, zero)


def _dot(k: Builder) -> Dot:
    assert k.isa.dot is not None, k.isa.name
    return k.isa.dot


def _extremes(k: Builder, x: Value, count: Size) -> tuple[Value, Value, Value]:
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


def _parameters(k: Builder, low: Value, high: Value, odd: Value) -> tuple[Value, Value, Value]:
    """Scale, its inverse, and the level of zero."""
    levels, nothing = k.const(f32, _dot(k).levels), k.const(f32, 0)
    span = k.fsub(high, low)
    is_some = k.fcmp("ogt", span, k.const(f32, SMALLEST))
    scale = k.select(is_some, k.fdiv(span, levels), nothing)
    factor = k.select(is_some, k.fdiv(levels, span), nothing)
    zero = k.call("llvm.rint", f32, [k.fmul(k.fneg(low), factor)])
    return k.fadd(scale, odd), factor, _clamped(k, zero)


def _quantise(k: Builder, x: Value, q: Value, count: Size, factor: Value, zero: Value) -> None:
    lanes = k.isa.lanes(f32)
    factors, zeros = k.splat(factor, lanes), k.splat(zero, lanes)
    offset = k.const(vec(i32, lanes), _dot(k).offset)

    def convert(column: Size, mask: Value | None, carried: list[Value]) -> list[Value]:
        level = _clamped(k, k.fma(_load(k, x, column, mask), factors, zeros))
        number = k.cast(k.call("llvm.rint", level.type, [level]), i32)
        k.store(k.cast(k.op("sub", number, offset), i8), q, column)
        return carried

    rows.sweep(k, 0, count, convert)


def _load(k: Builder, x: Value, column: Size, mask: Value | None) -> Value:
    vector, place = k.isa.vector(f32), k.mul(column, 4)
    return k.masked_load(vector, mask, x, place) if mask else k.load(vector, x, place)


def _clamped(k: Builder, level: Value) -> Value:
    """Within the levels; NaN becomes 0."""
    most, nothing = k.const(level.type, _dot(k).levels), k.const(level.type, 0)
    return _least(k, _most(k, level, nothing), most)


def _least(k: Builder, a: Value, b: Value) -> Value:
    return k.select(k.fcmp("olt", a, b), a, b)


def _most(k: Builder, a: Value, b: Value) -> Value:
    return k.select(k.fcmp("ogt", a, b), a, b)
