"""Rotary embedding: the halves of a row turned by cosines and sines."""

from __future__ import annotations

from dataclasses import dataclass

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.types import Value, f32, vec
from torch_aio.codegen.vmath.convert import convert
from torch_aio.kernels import chain as chains
from torch_aio.kernels import rows
from torch_aio.kernels.spec import KernelSpec

OPERANDS = ("x", "cos", "sin", "y")


@dataclass(frozen=True)
class RotateSpec(KernelSpec):
    """y[i] = x[i] cos[i] - x[i + h] sin[i], y[i + h] = x[i + h] cos[i + h] + x[i] sin[i + h].

    Rows of 2 h numbers (h: ``half``) along three outer dimensions, of which the kernel walks the
    last (``n2``) itself; byte strides ``x_0 x_1 x_2`` and so on. ``cos_half``, ``sin_half``: bytes
    from a table's first half to its second (0: it serves both). ``dtype`` of x and y, ``table`` of
    the tables; computed in f32. Units: n0 * n1.
    """

    dtype: str = "f32"
    table: str = "f32"

    params = Params(
        "n1:int n2:int half:int cos_half:int sin_half:int "
        + " ".join(f"{n}:ptr {n}_0:int {n}_1:int {n}_2:int" for n in OPERANDS)
    )

    @property
    def name(self) -> str:
        """``rotate_f32``, ``rotate_f16_by_f32``."""
        return f"rotate_{self.dtype}" + (f"_by_{self.table}" if self.table != self.dtype else "")

    def emit(self, k: Builder) -> None:
        """Row by row, a vector of each half at a time."""
        p = k.p
        with k.loop(k.begin, k.end) as unit:
            outer, inner = k.udiv(unit.i, p.n1), k.urem(unit.i, p.n1)
            starts = [
                k.at(
                    getattr(p, n),
                    k.mul(outer, getattr(p, f"{n}_0")),
                    k.mul(inner, getattr(p, f"{n}_1")),
                )
                for n in OPERANDS
            ]
            with k.loop(0, p.n2) as each:
                row = [
                    k.at(start, k.mul(each.i, getattr(p, f"{n}_2")))
                    for start, n in zip(starts, OPERANDS, strict=True)
                ]
                self._row(k, *row)

    def _row(self, k: Builder, x: Value, cos: Value, sin: Value, y: Value) -> None:
        p, lanes = k.p, k.isa.lanes(f32)
        size, entry = chains.itemsize(self.dtype), chains.itemsize(self.table)
        second = k.mul(p.half, size)

        def body(column: Size, mask: Value | None, _: list[Value]) -> list[Value]:
            def load(dtype: str, base: Value, *offsets: Size) -> Value:
                value = chains.load(k, dtype, lanes, base, *offsets, mask=mask)
                return convert(k, value, vec(f32, lanes))

            def store(value: Value, *offsets: Size) -> None:
                value = convert(k, value, vec(chains.TYPES[self.dtype], lanes))
                chains.store(k, value, y, *offsets, mask=mask)

            at, place = k.mul(column, size), k.mul(column, entry)
            a, b = load(self.dtype, x, at), load(self.dtype, x, at, second)
            first = k.fmul(a, load(self.table, cos, place))
            last = k.fmul(b, load(self.table, cos, place, p.cos_half))
            store(k.fma(k.fneg(b), load(self.table, sin, place), first), at)
            store(k.fma(a, load(self.table, sin, place, p.sin_half), last), at, second)
            return []

        rows.sweep(k, 0, p.half, body, unroll=2)
