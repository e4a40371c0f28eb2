"""Softmax and log-softmax of rows, and of columns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.types import Value, f32, f64, vec
from torch_aio.codegen.vmath.exponential import exp_magnitude
from torch_aio.codegen.vmath.logarithm import log
from torch_aio.kernels import chain as chains
from torch_aio.kernels import rows
from torch_aio.kernels.chain import Chain
from torch_aio.kernels.rows import COPY, RowOperands
from torch_aio.kernels.spec import KernelSpec


def _pick_larger(k: Builder, a: Value, b: Value) -> Value:
    """The maximum without care for NaN: a NaN reaches the sum anyway."""
    return k.select(k.fcmp("ogt", a, b), a, b)


@dataclass(frozen=True)
class SoftmaxSpec(KernelSpec):
    """y[r] = epilogue(softmax(prologue(x0[r], x1[r], ...))) along rows of ``cols`` elements.

    Three passes over the row: maximum; exponentials and their sum; scaling. A row that is all -inf,
    or has a NaN or +inf, gives NaN, as eager. Operands: see ``rows``; the epilogue's from ``e1``.
    ``stage`` is scratch of 4 * cols bytes, and there only if the result is not f32.
    Units: rows.
    """

    prologue: Chain = COPY
    epilogue: Chain = COPY
    is_log: bool = False

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The parameters for the chains' inputs."""
        stage = "" if self.epilogue.result == "f32" else "stage:scratch"
        operands = rows.params(self.prologue, "x"), rows.params(self.epilogue, "e", 1)
        return Params(" ".join(["cols:int y:ptr y_row:int", *operands, stage]))

    @property
    def name(self) -> str:
        """``softmax_f32``, ``log_softmax_f32_...``."""
        words = ["log_softmax" if self.is_log else "softmax", self.epilogue.result]
        words += [f"of_{self.prologue.name}"] if self.prologue.name else []
        words += [self.epilogue.name] if self.epilogue.name else []
        return "_".join(words)

    def emit(self, k: Builder) -> None:
        """Row by row."""
        with k.loop(k.begin, k.end) as unit:
            row = k.at(k.p.y, k.mul(unit.i, k.p.y_row))
            stage = row if self.epilogue.result == "f32" else k.p.stage
            source = RowOperands(k, self.prologue, "x", unit.i)
            top = self._maximum(k, source, stage)
            sum_ = self._exponentials(k, source, stage, top)
            self._finish(k, RowOperands(k, self.epilogue, "e", unit.i, 1), row, stage, sum_)

    def _maximum(self, k: Builder, source: RowOperands, stage: Value) -> Value:
        low = rows.identity(k, f32, -math.inf)

        def body(column: Size, mask: Value | None, carried: list[Value]) -> list[Value]:
            value = source.value(column, k.isa.lanes(f32), mask)
            if self.prologue != COPY:
                chains.store(k, value, stage, k.mul(column, 4), mask=mask)
            value = k.select(mask, value, low) if mask else value
            return [_pick_larger(k, value, carried[0])]

        unroll = rows.UNROLL if self.prologue.is_cheap else 1
        top = rows.fold(k, _pick_larger, rows.sweep(k, 0, k.p.cols, body, [low], unroll))
        return k.splat(top, k.isa.lanes(f32))

    def _exponentials(self, k: Builder, source: RowOperands, stage: Value, top: Value) -> Value:
        """The sum of e**(x - top); stores the terms (log: the differences) in ``stage``."""

        def term(column: Size, mask: Value | None) -> Value:
            at = k.mul(column, 4)
            if self.prologue == COPY:
                value = source.value(column, k.isa.lanes(f32), mask)
            else:
                value = chains.load(k, "f32", k.isa.lanes(f32), stage, at, mask=mask)
            value = k.fsub(value, top)
            e = exp_magnitude(k, value)
            chains.store(k, value if self.is_log else e, stage, at, mask=mask)
            return e

        return k.cast(rows.total(k, k.p.cols, term, unroll=2), f32)

    def _finish(
        self, k: Builder, result: RowOperands, row: Value, stage: Value, sum_: Value
    ) -> None:
        lanes, size = k.isa.lanes(f32), chains.itemsize(self.epilogue.result)
        if self.is_log:
            shift = k.splat(log(k, sum_), lanes)
        else:
            scale = k.splat(k.fdiv(k.const(f32, 1), sum_), lanes)

        def body(column: Size, mask: Value | None, _: list[Value]) -> list[Value]:
            value = chains.load(k, "f32", lanes, stage, k.mul(column, 4), mask=mask)
            value = k.fsub(value, shift) if self.is_log else k.fmul(value, scale)
            value = result.value(column, lanes, mask, value)
            chains.store(k, value, row, k.mul(column, size), mask=mask)
            return []

        rows.sweep(k, 0, k.p.cols, body)


@dataclass(frozen=True)
class ColumnSoftmaxSpec(KernelSpec):
    """y[o, :, i] = softmax(x[o, :, i]) of f32: ``depth`` elements that lie ``x_depth`` bytes apart.

    ``inner`` elements lie together. Units: outer * ceil(inner / 16 or 8 or 4, the f32 lanes).
    """

    is_log: bool = False
    params = Params(
        "depth:int inner:int x:ptr x_outer:int x_depth:int y:ptr y_outer:int y_depth:int"
    )

    @property
    def name(self) -> str:
        """``column_softmax_f32``."""
        return f"column_{'log_' if self.is_log else ''}softmax_f32"

    def emit(self, k: Builder) -> None:
        """One vector of columns a unit, three passes over its depth."""
        p, lanes = k.p, k.isa.lanes(f32)
        type_ = vec(f32, lanes)
        blocks = k.ceil_div(p.inner, lanes)
        with k.loop(k.begin, k.end) as unit:
            outer, column = k.udiv(unit.i, blocks), k.mul(k.urem(unit.i, blocks), lanes)
            mask = k.tail_mask(k.sub(p.inner, column), lanes)
            x = k.at(p.x, k.mul(outer, p.x_outer), k.mul(column, 4))
            y = k.at(p.y, k.mul(outer, p.y_outer), k.mul(column, 4))
            with k.loop(0, p.depth, carry=[k.const(type_, -math.inf)]) as l:
                value = k.masked_load(type_, mask, x, k.mul(l.i, p.x_depth))
                l.next = [_pick_larger(k, value, l.v[0])]
            top = l.v[0]
            with k.loop(0, p.depth, carry=[k.const(vec(f64, lanes), 0)]) as l:
                value = k.fsub(k.masked_load(type_, mask, x, k.mul(l.i, p.x_depth)), top)
                e = exp_magnitude(k, value)
                k.masked_store(value if self.is_log else e, mask, y, k.mul(l.i, p.y_depth))
                l.next = [k.fadd(l.v[0], k.cast(e, f64))]
            sum_ = k.cast(l.v[0], f32)
            shift = log(k, sum_) if self.is_log else k.fdiv(k.const(type_, 1), sum_)
            with k.loop(0, p.depth) as l:
                value = k.masked_load(type_, mask, y, k.mul(l.i, p.y_depth))
                value = k.fsub(value, shift) if self.is_log else k.fmul(value, shift)
                k.masked_store(value, mask, y, k.mul(l.i, p.y_depth))


__all__ = ["ColumnSoftmaxSpec", "SoftmaxSpec"]
