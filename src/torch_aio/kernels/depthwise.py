"""Convolutions whose output channel block reads the input channel block of the same number.

That is depthwise convolution, and grouped convolution with equal groups of 2, 4 ... channels on
both sides as long as a group fits a vector: there lane l of term n multiplies lane
(l - l % group) + n of the input, a shuffle known when the kernel is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.isa import Isa
from torch_aio.codegen.types import Value, f32
from torch_aio.kernels import chain as chains
from torch_aio.kernels.blocked import (
    ACCUMULATOR,
    Epilogue,
    each_vector,
    full_operands,
    operand_params,
)
from torch_aio.kernels.chain import Chain, itemsize
from torch_aio.kernels.spec import KernelSpec

BYTES = 4


def steps(isa: Isa) -> tuple[int, ...]:
    """Output pixels a step, the first that fit the width: eight of them spill on AVX2.

    Two-row tiles gain nothing (Zen 3). On a Neoverse N1, by llvm-mca, 3x3 reaches 0.55 of the peak,
    5x5 0.74 (0.50, 0.65 with four pixels): three micro-operations are dispatched a cycle, a vector
    load is two, a store four. Not tried: down the rows with both halves of a block, in pairs.
    """
    return (8, 4, 1) if isa.registers >= 32 else (4, 1)


@dataclass(frozen=True)
class Depthwise(KernelSpec):
    """y = epilogue(x * w), all blocked; w packed by ``pack_conv.PackDepthwise``.

    ``x`` points at the first tap of output pixel (0, 0), so a padded x has its halo in memory;
    ``row_step`` is the bytes of x between output rows, ``tap_step`` between tap rows; ``rows`` the
    output rows a unit. Units: batch * channel blocks * ceil(height / rows). ``masked``: the last
    channel block has padding lanes. ``stride`` and ``dilation`` are those along a row.

    Rows before blocks, so that a thread reads what it wrote before, gains nothing: MobileNetV2
    1.51 and 1.52 ms, EfficientNet-B0 2.89 and 3.15 (Zen 5, two threads).
    """

    kernel: tuple[int, int] = (3, 3)
    stride: int = 1
    dilation: int = 1
    group: int = 1
    masked: bool = False
    chain: Chain = ACCUMULATOR

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The kernel's parameters, the epilogue's operands last."""
        return Params(
            "x:ptr x_batch:int x_block:int row_step:int tap_step:int w:ptr "
            "y:ptr y_batch:int y_block:int y_row:int "
            "channels:int height:int width:int rows:int " + operand_params(self.chain, rows=True)
        )

    @property
    def name(self) -> str:
        """``depthwise_f32_3x3s2_relu_1f3a9c``."""
        (height, width), tail = self.kernel, "_tail" if self.masked else ""
        dilation = f"d{self.dilation}" if self.dilation > 1 else ""
        group = f"g{self.group}" if self.group > 1 else ""
        chain = f"_{self.chain.name}" if self.chain.name else ""
        return f"depthwise_f32_{height}x{width}s{self.stride}{dilation}{group}{tail}{chain}"

    def is_resident(self, k: Builder) -> bool:
        """Whether all weights stay in registers (9 of 16 on AVX2: 3x3)."""
        taps = self.kernel[0] * self.kernel[1]
        return self.group == 1 and taps + steps(k.isa)[0] + 2 <= k.isa.registers

    def emit(self, k: Builder) -> None:
        """Rows of a plane of a channel block, some pixels at a time, the last tile overlapping."""
        p, c = k.p, k.isa.block
        blocks, bands = k.ceil_div(p.channels, c), k.ceil_div(p.height, p.rows)
        weight_bytes = self.kernel[0] * self.kernel[1] * self.group * c * BYTES
        with k.loop(k.begin, k.end) as unit:
            plane, first = k.udiv(unit.i, bands), k.mul(k.urem(unit.i, bands), p.rows)
            batch, block = k.udiv(plane, blocks), k.urem(plane, blocks)
            with each_vector(k) as lane:
                x = k.at(p.x, k.mul(batch, p.x_batch), k.mul(block, p.x_block), k.mul(lane, BYTES))
                w = k.at(p.w, k.mul(block, weight_bytes), k.mul(lane, BYTES))
                y = k.at(p.y, k.mul(batch, p.y_batch), k.mul(block, p.y_block),
                         k.mul(lane, itemsize(self.chain.result)))  # fmt: skip
                channels = p.channels if self.masked else None
                epilogue = Epilogue.at(k, self.chain, batch, block, lane, channels)
                last = k.min(k.add(first, p.rows), p.height)
                self._band(k, x, w, y, (first, last), epilogue)

    def _band(
        self, k: Builder, x: Value, w: Value, y: Value, rows: tuple[Size, Size], end: Epilogue
    ) -> None:
        vector = k.isa.vector(f32)
        taps = range(self.kernel[0] * self.kernel[1]) if self.is_resident(k) else ()
        weights = [k.load(vector, w, t * k.isa.block * BYTES) for t in taps]
        with k.loop(*rows) as row:
            x_row, y_row = k.at(x, k.mul(row.i, k.p.row_step)), k.at(y, k.mul(row.i, k.p.y_row))
            above = 0
            for pixels in steps(k.isa):
                fits = k.icmp("sge", k.p.width, pixels)
                if above:
                    fits = k.op("and", fits, k.icmp("slt", k.p.width, above))
                above, limit = pixels, k.sub(k.p.width, pixels)
                with k.when(fits), k.loop(0, k.p.width, pixels) as tile:
                    start = k.min(tile.i, limit)
                    self._tile(k, x_row, w, weights, y_row, row.i, start, pixels, end)

    def _tile(
        self, k: Builder, x: Value, w: Value, weights: list[Value], y: Value,
        row: Value, start: Size, pixels: int, end: Epilogue,
    ) -> None:  # fmt: skip
        c = k.isa.block
        x = k.at(x, k.mul(start, self.stride * c * BYTES))
        sums = [k.const(k.isa.vector(f32), 0)] * pixels
        row_bytes = self.kernel[1] * self.group * c * BYTES
        if weights:
            for kh in range(self.kernel[0]):
                taps = weights[kh * self.kernel[1] : (kh + 1) * self.kernel[1]]
                sums = self._tap_row(k, k.at(x, k.mul(k.p.tap_step, kh)), taps, sums)
        else:
            with k.loop(0, self.kernel[0], carry=sums) as kh_loop:
                tap = k.at(x, k.mul(k.p.tap_step, kh_loop.i))
                w_row = k.at(w, k.mul(kh_loop.i, row_bytes))
                kh_loop.next = self._streamed_row(k, tap, w_row, kh_loop.v)
            sums = kh_loop.v
        size, operands = itemsize(self.chain.result), full_operands(self.chain)
        for n, value in enumerate(sums):
            offsets = []
            for o in operands:
                pixel = c * itemsize(self.chain.inputs[o].dtype)
                offsets.append(
                    k.add(k.mul(row, getattr(k.p, f"e{o}_row")), k.mul(k.add(start, n), pixel))
                )
            chains.store(k, end(value, offsets), k.at(y, k.mul(start, c * size)), n * c * size)

    def _streamed_row(self, k: Builder, x: Value, w: Value, sums: list[Value]) -> list[Value]:
        vector, c = k.isa.vector(f32), k.isa.block
        if self.group == 1:
            taps = [k.load(vector, w, kw * c * BYTES) for kw in range(self.kernel[1])]
            return self._tap_row(k, x, taps, sums)
        sums = list(sums)
        for kw in range(self.kernel[1]):
            pixel = [(n * self.stride + kw * self.dilation) * c * BYTES for n in range(len(sums))]
            inputs = [k.load(vector, x, offset) for offset in pixel]
            for term in range(self.group):
                weight = k.load(vector, w, (kw * self.group + term) * c * BYTES)
                lanes = [lane - lane % self.group + term for lane in range(vector.lanes)]
                for n, value in enumerate(inputs):
                    sums[n] = k.fma(k.shuffle(value, lanes), weight, sums[n])
        return sums

    def _tap_row(self, k: Builder, x: Value, taps: list[Value], sums: list[Value]) -> list[Value]:
        """One row of taps: every input pixel is loaded once and used by all pixels that see it."""
        sums, vector, pixel = list(sums), k.isa.vector(f32), k.isa.block * BYTES
        reach = (len(sums) - 1) * self.stride + (len(taps) - 1) * self.dilation + 1
        for column in range(reach):
            users = [
                (n, tap)
                for n in range(len(sums))
                for t, tap in enumerate(taps)
                if n * self.stride + t * self.dilation == column
            ]
            if users:
                value = k.load(vector, x, column * pixel)
                for n, tap in users:
                    sums[n] = k.fma(value, tap, sums[n])
        return sums
