"""Pooling in the channel-blocked layout: maximum, average, adaptive average.

Windows are clipped at the borders, so inputs need no halo. A unit is one output row of a channel
block. One-dimensional pooling is the case of one row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.types import Value, f32
from torch_aio.kernels.blocked import each_vector
from torch_aio.kernels.spec import KernelSpec

BYTES = 4
PIXELS = 4
MOST_COLUMNS = 8
"""Wider windows are not unrolled."""


@dataclass(frozen=True)
class Pool(KernelSpec):
    """y = max or average over windows of x. Units: batch * blocks * height (of y).

    ``columns``, ``stride``, ``dilation``: the window along a row, baked for windows that touch no
    border; ``columns == 0`` where it is wider than ``MOST_COLUMNS``. Average only: ``include_pad``
    (0 or 1) counts padding, ``divisor`` replaces the count where it is not 0.
    """

    params: ClassVar[Params] = Params(
        "x:ptr x_batch:int x_block:int x_row:int y:ptr y_batch:int y_block:int y_row:int "
        "blocks:int in_height:int in_width:int height:int width:int kernel_h:int kernel_w:int "
        "stride_h:int stride_w:int pad_h:int pad_w:int dilation_h:int dilation_w:int "
        "include_pad:int divisor:int"
    )
    kind: Literal["max", "avg"] = "max"
    columns: int = 0
    stride: int = 1
    dilation: int = 1

    @property
    def name(self) -> str:
        """``maxpool_f32_3s2``, ``avgpool_f32_any``."""
        window = f"{self.columns}s{self.stride}" if self.columns else "any"
        dilation = f"d{self.dilation}" if self.columns and self.dilation > 1 else ""
        return f"{self.kind}pool_f32_{window}{dilation}"

    def emit(self, k: Builder) -> None:
        """Interior pixels four at a time, those whose window is clipped one by one."""
        p = k.p
        with k.loop(k.begin, k.end) as unit:
            plane, row = k.udiv(unit.i, p.height), k.urem(unit.i, p.height)
            top = k.sub(k.mul(row, p.stride_h), p.pad_h)
            rows = _clip(k, top, p.in_height, p.kernel_h, p.dilation_h)
            with each_vector(k) as lane:
                x = k.at(_plane(k, "x", plane), k.mul(lane, BYTES), k.mul(top, p.x_row))
                y = k.at(_plane(k, "y", plane), k.mul(lane, BYTES), k.mul(row, p.y_row))
                first, last = self._interior(k)
                self._inner_pixels(k, x, y, top, rows, (first, last))
                inner = k.sub(last, first)
                with k.loop(0, k.sub(p.width, inner)) as i:
                    beyond = k.icmp("sge", i.i, first)
                    column = k.select(beyond, k.size(k.add(i.i, inner)), i.i)
                    self._border_pixel(k, x, y, top, rows, column)

    def _interior(self, k: Builder) -> tuple[Size, Size]:
        """The output columns whose windows lie inside the row (none without baked columns)."""
        p = k.p
        if not self.columns:
            return 0, 0
        reach = (self.columns - 1) * self.dilation + 1
        first = k.min(k.ceil_div(p.pad_w, self.stride), p.width)
        room = k.sub(k.add(p.in_width, p.pad_w), reach - self.stride)
        last = k.min(k.udiv(k.max(room, 0), self.stride), p.width)
        return first, k.max(first, last)

    def _inner_pixels(
        self, k: Builder, x: Value, y: Value, top: Size, rows: tuple[Size, Size],
        columns: tuple[Size, Size],
    ) -> None:  # fmt: skip
        if not self.columns:
            return
        first, last = columns
        whole = k.icmp("sge", k.size(k.sub(last, first)), PIXELS)
        limit = k.sub(last, PIXELS)
        with k.when(whole), k.loop(first, last, PIXELS) as tile:
            self._inner_tile(k, x, y, top, rows, k.min(tile.i, limit), PIXELS)
        few = k.icmp("slt", k.size(k.sub(last, first)), PIXELS)
        with k.when(few), k.loop(first, last) as pixel:
            self._inner_tile(k, x, y, top, rows, pixel.i, 1)

    def _inner_tile(
        self, k: Builder, x: Value, y: Value, top: Size, rows: tuple[Size, Size],
        start: Size, pixels: int,
    ) -> None:  # fmt: skip
        p, vector, pixel = k.p, k.isa.vector(f32), k.isa.block * BYTES
        left = k.sub(k.mul(start, self.stride), p.pad_w)
        x = k.at(x, k.mul(left, pixel))
        step = k.mul(p.dilation_h, p.x_row)
        with k.loop(*rows, carry=[self._start(k)] * pixels) as row:
            here, results = k.at(x, k.mul(row.i, step)), list(row.v)
            for column in range(
                (pixels - 1) * self.stride + (self.columns - 1) * self.dilation + 1
            ):
                users = [n for n in range(pixels) if self._sees(column - n * self.stride)]
                value = k.load(vector, here, column * pixel) if users else None
                for n in users:
                    assert value is not None
                    results[n] = self._combine(k, results[n], value)
            row.next = results
        for n, value in enumerate(row.v):
            count = self._count(k, top, k.add(left, n * self.stride), rows, (0, p.kernel_w))
            k.store(self._finish(k, value, count), y, k.mul(start, pixel), n * pixel)

    def _sees(self, distance: int) -> bool:
        return distance % self.dilation == 0 and 0 <= distance // self.dilation < self.columns

    def _border_pixel(
        self, k: Builder, x: Value, y: Value, top: Size, rows: tuple[Size, Size], column: Value
    ) -> None:
        p, vector, pixel = k.p, k.isa.vector(f32), k.isa.block * BYTES
        left = k.sub(k.mul(column, p.stride_w), p.pad_w)
        columns = _clip(k, left, p.in_width, p.kernel_w, p.dilation_w)
        x, step = k.at(x, k.mul(left, pixel)), k.mul(p.dilation_h, p.x_row)
        with k.loop(*rows, carry=[self._start(k)]) as row:
            here = k.at(x, k.mul(row.i, step))
            with k.loop(*columns, carry=row.v) as tap:
                value = k.load(vector, here, k.mul(tap.i, k.mul(p.dilation_w, pixel)))
                tap.next = [self._combine(k, tap.v[0], value)]
            row.next = tap.v
        count = self._count(k, top, left, rows, columns)
        k.store(self._finish(k, row.v[0], count), y, k.mul(column, pixel))

    def _start(self, k: Builder) -> Value:
        return k.const(k.isa.vector(f32), float("-inf") if self.kind == "max" else 0)

    def _combine(self, k: Builder, result: Value, value: Value) -> Value:
        """A sum, or the larger, where a NaN stays (x86's vmaxps alone would lose it)."""
        if self.kind == "avg":
            return k.fadd(result, value)
        larger = k.select(k.fcmp("ogt", value, result), value, result)
        return k.select(k.fcmp("uno", value, value), value, larger)

    def _count(
        self, k: Builder, top: Size, left: Size, rows: tuple[Size, Size], columns: tuple[Size, Size]
    ) -> Size:
        """What eager divides by: the window clipped at the padding, or at the plane."""
        if self.kind == "max":
            return 1
        p = k.p
        tall = k.min(p.kernel_h, k.sub(k.add(p.in_height, p.pad_h), top))
        wide = k.min(p.kernel_w, k.sub(k.add(p.in_width, p.pad_w), left))
        clipped = k.mul(k.sub(rows[1], rows[0]), k.sub(columns[1], columns[0]))
        with_pad = k.icmp("ne", p.include_pad, 0)
        count = k.select(with_pad, k.size(k.mul(tall, wide)), k.size(clipped))
        return k.select(k.icmp("ne", p.divisor, 0), p.divisor, count)

    def _finish(self, k: Builder, value: Value, count: Size) -> Value:
        return value if self.kind == "max" else _divide(k, value, count)


@dataclass(frozen=True)
class AdaptiveAvgPool(KernelSpec):
    """Output pixel i averages input pixels floor(i*in/out) to ceil((i+1)*in/out).

    Units: batch * blocks * height (of y).
    """

    params: ClassVar[Params] = Params(
        "x:ptr x_batch:int x_block:int x_row:int y:ptr y_batch:int y_block:int y_row:int "
        "blocks:int in_height:int in_width:int height:int width:int"
    )

    @property
    def name(self) -> str:
        """``adaptive_avgpool_f32``."""
        return "adaptive_avgpool_f32"

    def emit(self, k: Builder) -> None:
        """Pixel by pixel, a window in ``PIXELS`` sums: they hide the adder's latency."""
        p, pixel = k.p, k.isa.block * BYTES
        with k.loop(k.begin, k.end) as unit:
            plane, row = k.udiv(unit.i, p.height), k.urem(unit.i, p.height)
            top, bottom = _adaptive(k, row, p.in_height, p.height)
            with each_vector(k) as lane, k.loop(0, p.width) as column:
                left, right = _adaptive(k, column.i, p.in_width, p.width)
                x = k.at(_plane(k, "x", plane), k.mul(lane, BYTES))
                y = k.at(_plane(k, "y", plane), k.mul(lane, BYTES), k.mul(row, p.y_row))
                total = _sum(k, x, (top, bottom), (left, right))
                count = k.mul(k.sub(bottom, top), k.sub(right, left))
                k.store(_divide(k, total, count), y, k.mul(column.i, pixel))


def _sum(k: Builder, x: Value, rows: tuple[Size, Size], columns: tuple[Size, Size]) -> Value:
    vector, pixel = k.isa.vector(f32), k.isa.block * BYTES
    left, right = columns
    whole = k.add(left, k.mul(k.udiv(k.sub(right, left), PIXELS), PIXELS))
    with k.loop(*rows, carry=[k.const(vector, 0)] * PIXELS) as row:
        here = k.at(x, k.mul(row.i, k.p.x_row))
        with k.loop(left, whole, PIXELS, carry=row.v) as run:
            start = k.mul(run.i, pixel)
            run.next = [
                k.fadd(v, k.load(vector, here, start, n * pixel)) for n, v in enumerate(run.v)
            ]
        with k.loop(whole, right, carry=run.v[:1]) as tap:
            tap.next = [k.fadd(tap.v[0], k.load(vector, here, k.mul(tap.i, pixel)))]
        row.next = [*tap.v, *run.v[1:]]
    a, b, c, d = row.v
    return k.fadd(k.fadd(a, b), k.fadd(c, d))


def _adaptive(k: Builder, index: Size, size: Size, outputs: Size) -> tuple[Size, Size]:
    start = k.udiv(k.mul(index, size), outputs)
    return start, k.ceil_div(k.mul(k.add(index, 1), size), outputs)


def _clip(k: Builder, start: Size, size: Size, taps: Size, dilation: Size) -> tuple[Size, Size]:
    """The taps of a window beginning at ``start`` that lie in [0, size)."""
    first = k.ceil_div(k.max(k.sub(0, start), 0), dilation)
    last = k.min(taps, k.ceil_div(k.max(k.sub(size, start), 0), dilation))
    return first, last


def _plane(k: Builder, name: str, plane: Size) -> Value:
    """The plane of a channel block of parameter ``name`` (x or y), numbered over the batch."""
    batch, block = k.udiv(plane, k.p.blocks), k.urem(plane, k.p.blocks)
    base, by_batch, by_block = (getattr(k.p, name + s) for s in ("", "_batch", "_block"))
    return k.at(base, k.mul(batch, by_batch), k.mul(block, by_block))


def _divide(k: Builder, total: Value, count: Size) -> Value:
    """``total / count``; an empty window gives 0 as in eager."""
    divisor = k.cast(k.size(count), f32)
    one = k.select(k.icmp("eq", k.size(count), 0), k.const(f32, 1), divisor)
    return k.fdiv(total, k.splat(one, total.type.lanes))
