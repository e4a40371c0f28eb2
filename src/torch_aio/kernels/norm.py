"""Layer, RMS and group normalisation of f32 rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.types import Value, f32, f64
from torch_aio.kernels import chain as chains
from torch_aio.kernels import rows
from torch_aio.kernels.chain import Chain
from torch_aio.kernels.rows import COPY, RowOperands
from torch_aio.kernels.spec import KernelSpec

Source = Callable[[Size, "Value | None"], Value]


@dataclass(frozen=True)
class NormSpec(KernelSpec):
    """y[r] = epilogue(normalise(prologue(x0[r], ...)) * weight + bias); rows of ``cols`` elements.

    ``is_rms``: x / sqrt(mean(x*x) + eps); else (x - mean) / sqrt(variance + eps), the variance from
    a second pass over the differences. ``weight``, ``bias``: f32 of ``cols`` where ``has_...``.
    ``keeps_sum``: the prologue's result also goes to ``sum`` (f32). With a prologue and neither
    that nor an f32 result it is held in ``stage``, scratch of 4 * cols bytes.
    Units: rows.
    """

    is_rms: bool = False
    has_weight: bool = True
    has_bias: bool = True
    prologue: Chain = COPY
    epilogue: Chain = COPY
    keeps_sum: bool = False

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The parameters for the flags and the chains' inputs."""
        words = ["cols:int eps:float y:ptr y_row:int", rows.params(self.prologue, "x")]
        words += ["weight:ptr"] * self.has_weight + ["bias:ptr"] * self.has_bias
        words += [rows.params(self.epilogue, "e", 1)]
        words += ["sum:ptr sum_row:int"] * self.keeps_sum + ["stage:scratch"] * self._has_stage
        return Params(" ".join(words))

    @property
    def _has_stage(self) -> bool:
        is_held = self.keeps_sum or self.epilogue.result == "f32"
        return self.prologue != COPY and not is_held

    @property
    def name(self) -> str:
        """``layer_norm_f32_wb``."""
        words = ["rms_norm" if self.is_rms else "layer_norm", self.epilogue.result]
        words += [("w" if self.has_weight else "") + ("b" if self.has_bias else "") or "plain"]
        words += [f"of_{self.prologue.name}"] if self.prologue.name else []
        words += ["sum"] if self.keeps_sum else []
        words += [self.epilogue.name] if self.epilogue.name else []
        return "_".join(words)

    def emit(self, k: Builder) -> None:
        """Row by row."""
        lanes = k.isa.lanes(f32)
        with k.loop(k.begin, k.end) as unit:
            row = k.at(k.p.y, k.mul(unit.i, k.p.y_row))
            source = RowOperands(k, self.prologue, "x", unit.i)
            held = self._held(k, row, unit.i)

            def computed(column: Size, mask: Value | None, source: RowOperands = source) -> Value:
                return source.value(column, lanes, mask)

            def again(column: Size, mask: Value | None, held: Value | None = held) -> Value:
                if held is None:
                    return computed(column, mask)
                return chains.load(k, "f32", lanes, held, k.mul(column, 4), mask=mask)

            first = computed if held is None else _and_store(k, computed, held)
            mean, scale = statistics(k, k.p.cols, first, again, k.p.eps, is_rms=self.is_rms)
            result = RowOperands(k, self.epilogue, "e", unit.i, 1)
            self._finish(k, again, result, row, (mean, scale))

    def _held(self, k: Builder, row: Value, unit: Value) -> Value | None:
        """Where the prologue's result stays between the passes."""
        if self.prologue == COPY:
            return None
        if self.keeps_sum:
            return k.at(k.p.sum, k.mul(unit, k.p.sum_row))
        stage: Value = row if self.epilogue.result == "f32" else k.p.stage
        return stage

    def _finish(
        self, k: Builder, source: Source, result: RowOperands, row: Value,
        moments: tuple[Value | None, Value],
    ) -> None:  # fmt: skip
        lanes, size = k.isa.lanes(f32), chains.itemsize(self.epilogue.result)
        mean, scale = moments

        def body(column: Size, mask: Value | None, _: list[Value]) -> list[Value]:
            value, at = source(column, mask), k.mul(column, 4)
            value = k.fmul(k.fsub(value, mean) if mean else value, scale)
            if self.has_weight:
                weight = chains.load(k, "f32", lanes, k.p.weight, at, mask=mask)
                value = k.fmul(value, weight)
            if self.has_bias:
                bias = chains.load(k, "f32", lanes, k.p.bias, at, mask=mask)
                value = k.fadd(value, bias)
            value = result.value(column, lanes, mask, value)
            chains.store(k, value, row, k.mul(column, size), mask=mask)
            return []

        rows.sweep(k, 0, k.p.cols, body, unroll=2)


def _and_store(k: Builder, source: Source, target: Value) -> Source:
    def body(column: Size, mask: Value | None) -> Value:
        value = source(column, mask)
        chains.store(k, value, target, k.mul(column, 4), mask=mask)
        return value

    return body


def statistics(
    k: Builder, cols: Size, first: Source, again: Source, eps: Value, *, is_rms: bool
) -> tuple[Value | None, Value]:
    """The mean (None for RMS) and 1 / sqrt(variance + eps) of a row, in every lane.

    ``first`` gives the vectors in the first pass over the row, ``again`` in the second.
    """
    lanes, one = k.isa.lanes(f32), k.const(f64, 1)
    share = k.fdiv(one, k.cast(k.size(cols), f64))
    mean: Value | None = None
    source = first
    if not is_rms:
        mean = k.splat(k.cast(k.fmul(rows.total(k, cols, first), share), f32), lanes)
        source = again

    def square(column: Size, mask: Value | None) -> Value:
        value = source(column, mask)
        value = k.fsub(value, mean) if mean else value
        return k.fmul(value, value)

    variance = k.fmul(rows.total(k, cols, square), share)
    root = k.call("llvm.sqrt", f64, [k.fadd(variance, k.cast(eps, f64))])
    return mean, k.splat(k.cast(k.fdiv(one, root), f32), lanes)


@dataclass(frozen=True)
class GroupNormSpec(KernelSpec):
    """y = group normalisation of contiguous f32 x: rows are the (sample, group) pairs.

    A row is ``channels`` planes of ``plane`` elements; ``weight`` and ``bias``: f32 of
    groups * channels where ``has_...``. Units: samples * groups.
    """

    has_weight: bool = True
    has_bias: bool = True

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The parameters for the flags."""
        words = ["plane:int channels:int groups:int eps:float x:ptr y:ptr"]
        words += ["weight:ptr"] * self.has_weight + ["bias:ptr"] * self.has_bias
        return Params(" ".join(words))

    @property
    def name(self) -> str:
        """``group_norm_f32_wb``."""
        kind = ("w" if self.has_weight else "") + ("b" if self.has_bias else "")
        return f"group_norm_f32_{kind or 'plain'}"

    def emit(self, k: Builder) -> None:
        """The statistics of a row, then plane by plane."""
        p, lanes = k.p, k.isa.lanes(f32)
        cols = k.mul(p.plane, p.channels)
        with k.loop(k.begin, k.end) as unit:
            start = k.mul(unit.i, k.mul(cols, 4))

            def load(column: Size, mask: Value | None, start: Size = start) -> Value:
                return chains.load(k, "f32", lanes, p.x, start, k.mul(column, 4), mask=mask)

            mean, scale = statistics(k, cols, load, load, p.eps, is_rms=False)
            first = k.mul(k.urem(unit.i, p.groups), p.channels)
            with k.loop(0, p.channels) as channel:
                number = k.mul(k.add(first, channel.i), 4)
                at = k.add(start, k.mul(channel.i, k.mul(p.plane, 4)))
                self._plane(k, at, number, mean, scale)

    def _plane(
        self, k: Builder, start: Size, number: Size, mean: Value | None, scale: Value
    ) -> None:
        p, lanes = k.p, k.isa.lanes(f32)
        assert mean is not None
        factor = scale
        if self.has_weight:
            factor = k.fmul(scale, chains.load_scalar(k, "f32", lanes, p.weight, number))
        bias = chains.load_scalar(k, "f32", lanes, p.bias, number) if self.has_bias else None

        def body(column: Size, mask: Value | None, _: list[Value]) -> list[Value]:
            at = k.mul(column, 4)
            value = chains.load(k, "f32", lanes, p.x, start, at, mask=mask)
            value = k.fsub(value, mean)
            value = k.fma(value, factor, bias) if bias else k.fmul(value, factor)
            chains.store(k, value, p.y, start, at, mask=mask)
            return []

        rows.sweep(k, 0, p.plane, body, unroll=2)
