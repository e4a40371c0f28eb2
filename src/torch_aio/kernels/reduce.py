"""Reductions: along rows whose elements lie together, and down columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.types import Type, Value, f32, f64, i8, i32, i64, vec
from torch_aio.codegen.vmath.arithmetic import binary, maximum, minimum
from torch_aio.codegen.vmath.convert import convert
from torch_aio.kernels import chain as chains
from torch_aio.kernels import rows
from torch_aio.kernels.chain import TYPES, Chain
from torch_aio.kernels.rows import COPY, Combine, RowOperands
from torch_aio.kernels.spec import KernelSpec

COMBINE: dict[str, Combine] = {
    "sum": binary("add"), "mean": binary("add"), "prod": binary("mul"), "max": maximum,
    "min": minimum, "any": binary("or"), "all": binary("and"),
}  # fmt: skip
DEPTH = 64
"""Rows summed in f32 before the sum moves to f64."""
COLUMNS = 4
"""Vectors of columns that go down together: a cache line or more of each row."""


def _identity(op: str, type_: Type) -> float:
    if op in ("max", "min"):
        sign = -1 if op == "max" else 1
        if type_.is_float:
            return sign * math.inf
        return -(1 << type_.bits - 1) if op == "max" else (1 << type_.bits - 1) - 1
    return 1 if op in ("prod", "all") else 0


@dataclass(frozen=True)
class _Reduce(KernelSpec):
    """What is reduced: ``op`` of COMBINE over ``prologue`` of the elements, stored as ``result``.

    The prologue's result is the type that is computed in (f32 sums: f64 beyond a block; bool
    for any and all). Max and min propagate NaN.
    """

    op: str
    prologue: Chain = COPY
    result: str = "f32"

    @property
    def _suffix(self) -> str:
        words = [self.op, self.result]
        words += [f"of_{self.prologue.name}"] if self.prologue.name else []
        return "_".join(words)

    @property
    def _type(self) -> Type:
        """The type of the accumulators (truth values are 32-bit 0 and 1; products f64)."""
        type_ = TYPES[self.prologue.result]
        if self.op == "prod" and type_ == f32:
            return f64
        return i32 if type_.bits == 1 else type_

    @property
    def _is_wide(self) -> bool:
        return self.op in ("sum", "mean") and self._type == f32

    def _finish(self, k: Builder, value: Value, count: Size) -> Value:
        """The accumulated scalar or vector as the result, in its memory type."""
        if self.op == "mean":
            divisor = k.splat(k.cast(k.size(count), f64), value.type.lanes)
            value = k.fdiv(k.cast(value, f64), divisor)
        if self.result == "bool":
            return k.cast(k.icmp("ne", value, 0), i8)
        return convert(k, value, TYPES[self.result])


@dataclass(frozen=True)
class RowReduceSpec(_Reduce):
    """y[r] = op over the columns of prologue(x0[r], ...): see ``rows`` for the operands.

    Parameters: ``cols``, ``y`` and its byte stride ``y_row``, operands. Units: rows.
    """

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The parameters for the prologue's inputs."""
        return Params(f"cols:int y:ptr y_row:int {rows.params(self.prologue, 'x')}")

    @property
    def name(self) -> str:
        """``reduce_rows_sum_f32``."""
        return f"reduce_rows_{self._suffix}"

    def emit(self, k: Builder) -> None:
        """Row by row."""
        with k.loop(k.begin, k.end) as unit:
            source = RowOperands(k, self.prologue, "x", unit.i)
            value = self._sum(k, source) if self._is_wide else self._fold(k, source)
            result = self._finish(k, value, k.p.cols)
            chains.store(k, result, k.p.y, k.mul(unit.i, k.p.y_row))

    def _sum(self, k: Builder, source: RowOperands) -> Value:
        lanes = k.isa.lanes(f32)
        return rows.total(k, k.p.cols, lambda column, mask: source.value(column, lanes, mask))

    def _fold(self, k: Builder, source: RowOperands) -> Value:
        lanes, combine = k.isa.lanes(f32), COMBINE[self.op]
        neutral = rows.identity(k, self._type, _identity(self.op, self._type))

        def body(column: Size, mask: Value | None, carried: list[Value]) -> list[Value]:
            value = k.cast(source.value(column, lanes, mask), self._type)
            value = k.select(mask, value, neutral) if mask else value
            return [combine(k, carried[0], value)]

        return rows.fold(k, combine, rows.sweep(k, 0, k.p.cols, body, [neutral]))


@dataclass(frozen=True)
class ColumnReduceSpec(_Reduce):
    """y[o, i] = op over d of prologue(x[o, d, i]); the ``inner`` elements lie together in x and y.

    The prologue has one input. Parameters: ``depth``, ``inner``, byte strides ``x_outer``,
    ``x_depth``, ``y_outer``. Units: outer * ceil(inner / columns(isa)).
    """

    params = Params("depth:int inner:int x:ptr x_outer:int x_depth:int y:ptr y_outer:int")

    @property
    def name(self) -> str:
        """``reduce_columns_sum_f32``."""
        return f"reduce_columns_{self._suffix}"

    def emit(self, k: Builder) -> None:
        """Whole tiles of columns with plain loads; the rest a masked vector at a time."""
        p, lanes = k.p, k.isa.lanes(f32)
        tile = columns(lanes)
        blocks = k.ceil_div(p.inner, tile)
        source, result = (chains.itemsize(d) for d in (self.prologue.inputs[0].dtype, self.result))
        with k.loop(k.begin, k.end) as unit:
            outer, first = k.udiv(unit.i, blocks), k.mul(k.urem(unit.i, blocks), tile)
            left = k.size(k.sub(p.inner, first))
            x = k.at(p.x, k.mul(outer, p.x_outer), k.mul(first, source))
            y = k.at(p.y, k.mul(outer, p.y_outer), k.mul(first, result))
            with k.when(k.icmp("sge", left, tile)):
                self._tile(k, x, y, [n * lanes for n in range(COLUMNS)], None)
            with k.when(k.icmp("slt", left, tile)), k.loop(0, left, lanes) as l:
                self._tile(k, x, y, [l.i], k.tail_mask(k.sub(left, l.i), lanes))

    def _tile(
        self, k: Builder, x: Value, y: Value, starts: Sequence[Size], mask: Value | None
    ) -> None:
        depth, result = k.p.depth, chains.itemsize(self.result)
        if self._is_wide:
            wide = [k.const(vec(f64, k.isa.lanes(f32)), 0) for _ in starts]
            with k.loop(0, depth, DEPTH, carry=wide) as block:
                stop = k.min(depth, k.add(block.i, DEPTH))
                parts = self._down(k, x, block.i, stop, starts, mask)
                block.next = [
                    k.fadd(a, k.cast(b, f64)) for a, b in zip(block.v, parts, strict=True)
                ]
            values = block.v
        else:
            values = self._down(k, x, 0, depth, starts, mask)
        for start, value in zip(starts, values, strict=True):
            finished = self._finish(k, value, depth)
            chains.store(k, finished, y, k.mul(start, result), mask=mask)

    def _down(
        self, k: Builder, x: Value, start: Size, stop: Size, starts: Sequence[Size],
        mask: Value | None,
    ) -> list[Value]:  # fmt: skip
        """The accumulators of the tile over rows ``start`` to ``stop``."""
        lanes, dtype = k.isa.lanes(f32), self.prologue.inputs[0].dtype
        neutral = rows.identity(k, self._type, _identity(self.op, self._type))
        with k.loop(start, stop, carry=[neutral] * len(starts)) as l:
            row = k.at(x, k.mul(l.i, k.p.x_depth))
            loaded = [
                chains.load(k, dtype, lanes, row, k.mul(s, chains.itemsize(dtype)), mask=mask)
                for s in starts
            ]
            values = [k.cast(self.prologue.emit(k, [v]), self._type) for v in loaded]
            l.next = [COMBINE[self.op](k, a, b) for a, b in zip(l.v, values, strict=True)]
        return l.v


def columns(lanes: int) -> int:
    """Columns of a unit of ColumnReduceSpec on vectors of ``lanes`` f32."""
    return COLUMNS * lanes


@dataclass(frozen=True)
class ArgReduceSpec(KernelSpec):
    """The largest (``op`` max) or smallest element of each row, and where it stands first.

    NaN counts as most extreme. ``dtype``: of x and ``values``. Parameters: ``cols``, ``x``, byte
    strides; ``values`` where ``has_values``, ``indices`` (i64) where ``has_indices``. Units: rows.
    """

    op: str
    dtype: str = "f32"
    has_values: bool = False
    has_indices: bool = True

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The parameters for the outputs."""
        words = ["cols:int x:ptr x_row:int"]
        words += ["values:ptr values_row:int"] * self.has_values
        words += ["indices:ptr indices_row:int"] * self.has_indices
        return Params(" ".join(words))

    @property
    def name(self) -> str:
        """``arg_max_f32_vi``."""
        return f"arg_{self.op}_{self.dtype}_{'v' * self.has_values}{'i' * self.has_indices}"

    def emit(self, k: Builder) -> None:
        """Each lane keeps its best and the column; then the lanes are compared one by one."""
        p, lanes = k.p, k.isa.lanes(f32)
        type_ = vec(TYPES[self.dtype], lanes)
        worst = k.const(type_, _identity(self.op, TYPES[self.dtype]))
        offsets = k.lanes_const(i64, list(range(lanes)))
        values, places = k.alloca(8 * lanes), k.alloca(8 * lanes)
        with k.loop(k.begin, k.end) as unit:
            row = k.at(p.x, k.mul(unit.i, p.x_row))

            def body(
                column: Size, mask: Value | None, carried: list[Value], row: Value = row
            ) -> list[Value]:
                at = k.mul(column, chains.itemsize(self.dtype))
                value = chains.load(k, self.dtype, lanes, row, at, mask=mask)
                place = k.op("add", k.splat(k.size(column), lanes), offsets)
                better = self._better(k, value, carried[0])
                # a lane that has seen nothing takes even the worst value
                better = k.op("or", better, k.icmp("slt", carried[1], 0))
                better = k.op("and", better, mask) if mask else better
                return [
                    k.select(better, a, b) for a, b in zip((value, place), carried, strict=True)
                ]

            nothing = k.const(vec(i64, lanes), -1)
            best = rows.sweep(k, 0, p.cols, body, [worst, nothing], unroll=1)
            k.store(best[0], values)
            k.store(best[1], places)
            self._lanes(k, unit.i, values, places, lanes)

    def _better(self, k: Builder, a: Value, b: Value) -> Value:
        if not a.type.is_float:
            return k.icmp("sgt" if self.op == "max" else "slt", a, b)
        ordered = k.fcmp("ugt" if self.op == "max" else "ult", a, b)  # true where either is NaN
        return k.op("and", ordered, k.fcmp("ord", b, b))

    def _lanes(self, k: Builder, unit: Size, values: Value, places: Value, lanes: int) -> None:
        p, type_ = k.p, TYPES[self.dtype]
        first = [k.load(type_, values), k.load(i64, places)]
        with k.loop(1, k.min(lanes, p.cols), carry=first) as l:
            value = k.load(type_, values, k.mul(l.i, type_.bytes))
            place = k.load(i64, places, k.mul(l.i, 8))
            better = self._better(k, value, l.v[0])
            equal = self._equal(k, value, l.v[0])
            earlier = k.op("and", equal, k.icmp("slt", place, l.v[1]))
            better = k.op("or", better, earlier)
            l.next = [k.select(better, value, l.v[0]), k.select(better, place, l.v[1])]
        if self.has_values:
            k.store(l.v[0], p.values, k.mul(unit, p.values_row))
        if self.has_indices:
            k.store(l.v[1], p.indices, k.mul(unit, p.indices_row))

    def _equal(self, k: Builder, a: Value, b: Value) -> Value:
        if not a.type.is_float:
            return k.icmp("eq", a, b)
        both = k.op("and", k.fcmp("uno", a, a), k.fcmp("uno", b, b))
        return k.op("or", k.fcmp("oeq", a, b), both)
