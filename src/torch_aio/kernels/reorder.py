"""Reorders between strided tensors and the channel-blocked layout, padded copies, halos.

Channel-blocked: [N][C/c][H][W][c] with c = ``isa.block`` and strides in bytes for batch, channel
block and row; a pixel is c floats. Lanes past the last channel hold zeros: every kernel here writes
them. A halo around the planes is strides plus offset; ``HaloZero`` clears it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.types import Value, f32, vec
from torch_aio.kernels.spec import KernelSpec

Dense = Literal["w", "c", ""]
"""Which dimension of the strided tensor has stride 1: its rows, its channels, or (perhaps) none."""

BYTES = 4


@dataclass(frozen=True)
class ToBlocked(KernelSpec):
    """y (blocked) = x (strided: x_n, x_c, x_h, x_w). Units: batch * channel blocks * height.

    ``dense`` promises x_w == 4 ("w") or x_c == 4 ("c").
    """

    params: ClassVar[Params] = Params(
        "x:ptr x_n:int x_c:int x_h:int x_w:int y:ptr y_batch:int y_block:int y_row:int "
        "channels:int height:int width:int"
    )
    dense: Dense = "w"

    @property
    def name(self) -> str:
        """``reorder_f32_w_to_blocked``."""
        return f"reorder_f32_{self.dense or 'any'}_to_blocked"

    def emit(self, k: Builder) -> None:
        """Row by row: 16 channels of a run of pixels."""
        p, tile = k.p, {"w": _gather_rows, "c": _gather_channels, "": _gather_any}[self.dense]
        with k.loop(k.begin, k.end) as unit:
            batch, block, row, left = _row_of_unit(k, unit.i)
            first = k.mul(block, k.isa.block)
            x = k.at(p.x, k.mul(batch, p.x_n), k.mul(first, p.x_c), k.mul(row, p.x_h))
            y = k.at(p.y, k.mul(batch, p.y_batch), k.mul(block, p.y_block), k.mul(row, p.y_row))
            tile(k, x, y, left)


@dataclass(frozen=True)
class FromBlocked(KernelSpec):
    """y (strided: y_n, y_c, y_h, y_w) = x (blocked). Units: batch * channel blocks * height.

    ``dense`` promises y_w == 4 ("w") or y_c == 4 ("c").
    """

    params: ClassVar[Params] = Params(
        "x:ptr x_batch:int x_block:int x_row:int y:ptr y_n:int y_c:int y_h:int y_w:int "
        "channels:int height:int width:int"
    )
    dense: Dense = "w"

    @property
    def name(self) -> str:
        """``reorder_f32_blocked_to_w``."""
        return f"reorder_f32_blocked_to_{self.dense or 'any'}"

    def emit(self, k: Builder) -> None:
        """Row by row: 16 channels of a run of pixels."""
        p, tile = k.p, {"w": _scatter_rows, "c": _scatter_channels, "": _scatter_any}[self.dense]
        with k.loop(k.begin, k.end) as unit:
            batch, block, row, left = _row_of_unit(k, unit.i)
            first = k.mul(block, k.isa.block)
            x = k.at(p.x, k.mul(batch, p.x_batch), k.mul(block, p.x_block), k.mul(row, p.x_row))
            y = k.at(p.y, k.mul(batch, p.y_n), k.mul(first, p.y_c), k.mul(row, p.y_h))
            tile(k, x, y, left)


@dataclass(frozen=True)
class PadPlanar(KernelSpec):
    """y = x with a frame of zeros, both planar: what a first convolution reads.

    y begins at its frame: [batch, channels, height + top + bottom, width + left + right] with
    strides y_n, y_c, y_row bytes, elements dense. Units: batch * channels * padded rows.
    """

    params: ClassVar[Params] = Params(
        "x:ptr x_n:int x_c:int x_h:int x_w:int y:ptr y_n:int y_c:int y_row:int "
        "channels:int height:int width:int top:int bottom:int left:int right:int"
    )
    dense: bool = True

    @property
    def name(self) -> str:
        """``pad_f32_w``."""
        return f"pad_f32_{'w' if self.dense else 'any'}"

    def emit(self, k: Builder) -> None:
        """Rows of the frame are cleared, the others copied between two runs of zeros."""
        p = k.p
        rows = k.add(p.height, k.add(p.top, p.bottom))
        with k.loop(k.begin, k.end) as unit:
            plane, row = k.udiv(unit.i, rows), k.sub(k.urem(unit.i, rows), p.top)
            batch, channel = k.udiv(plane, p.channels), k.urem(plane, p.channels)
            above = k.mul(k.add(row, p.top), p.y_row)
            y = k.at(p.y, k.mul(batch, p.y_n), k.mul(channel, p.y_c), above)
            outside = k.icmp("uge", k.size(row), p.height)
            with k.when(outside):
                _clear(k, y, k.add(k.add(p.left, p.right), p.width))
            with k.when(k.icmp("ult", k.size(row), p.height)):
                x = k.at(p.x, k.mul(batch, p.x_n), k.mul(channel, p.x_c), k.mul(row, p.x_h))
                inner = k.at(y, k.mul(p.left, BYTES))
                _clear(k, y, p.left)
                _copy(k, x, inner, p.width, None if self.dense else p.x_w)
                _clear(k, k.at(inner, k.mul(p.width, BYTES)), p.right)


@dataclass(frozen=True)
class HaloZero(KernelSpec):
    """Zero the frame around the planes of y (blocked; y points at the first inner pixel).

    Units: batch * channel blocks. ``blocks`` is the number of channel blocks.
    """

    params: ClassVar[Params] = Params(
        "y:ptr y_batch:int y_block:int y_row:int blocks:int height:int width:int "
        "top:int bottom:int left:int right:int"
    )

    @property
    def name(self) -> str:
        """``halo_zero_f32``."""
        return "halo_zero_f32"

    def emit(self, k: Builder) -> None:
        """Whole rows above and below, two runs of pixels beside every inner row."""
        p, pixel = k.p, k.isa.block * BYTES
        lead = k.mul(p.left, pixel)
        whole = k.mul(k.add(k.add(p.left, p.right), p.width), k.isa.block)
        with k.loop(k.begin, k.end) as unit:
            batch, block = k.udiv(unit.i, p.blocks), k.urem(unit.i, p.blocks)
            plane = k.at(p.y, k.mul(batch, p.y_batch), k.mul(block, p.y_block), k.sub(0, lead))
            with k.loop(k.sub(0, p.top), 0) as row:
                _clear(k, k.at(plane, k.mul(row.i, p.y_row)), whole)
            with k.loop(0, p.height) as row:
                start = k.at(plane, k.mul(row.i, p.y_row))
                _clear(k, start, k.mul(p.left, k.isa.block))
                end = k.at(start, lead, k.mul(p.width, pixel))
                _clear(k, end, k.mul(p.right, k.isa.block))
            with k.loop(p.height, k.add(p.height, p.bottom)) as row:
                _clear(k, k.at(plane, k.mul(row.i, p.y_row)), whole)


def transpose(k: Builder, rows: Sequence[Value]) -> list[Value]:
    """The transpose of L vectors of L lanes (L a power of two): log2(L) butterflies of shuffles."""
    size = len(rows)
    out, span = list(rows), size // 2
    while span:
        for i in (i for i in range(size) if not i & span):
            a, b = out[i], out[i + span]
            low = [size + n - span if n & span else n for n in range(size)]
            high = [size + n if n & span else n + span for n in range(size)]
            out[i], out[i + span] = k.shuffle(a, low, b), k.shuffle(a, high, b)
        span //= 2
    return out


def _row_of_unit(k: Builder, unit: Value) -> tuple[Size, Size, Size, Size]:
    """Batch, channel block and row of a unit, and how many channels the block holds."""
    p, c = k.p, k.isa.block
    blocks = k.ceil_div(p.channels, c)
    plane, row = k.udiv(unit, p.height), k.urem(unit, p.height)
    batch, block = k.udiv(plane, blocks), k.urem(plane, blocks)
    return batch, block, row, k.min(k.sub(p.channels, k.mul(block, c)), c)


def _runs(k: Builder) -> tuple[Value, Value, int]:
    """Whether a row holds a whole vector of pixels, whether not, and the lanes of a vector."""
    lanes = k.isa.lanes(f32)
    return k.icmp("sge", k.p.width, lanes), k.icmp("slt", k.p.width, lanes), lanes


def _gather_rows(k: Builder, x: Value, y: Value, left: Size) -> None:
    """Pixels dense in x: transposed in registers; the last vector overlaps the one before it."""
    wide, narrow, lanes = _runs(k)
    p, c, vector = k.p, k.isa.block, vec(f32, lanes)
    with k.when(wide):
        last = k.sub(p.width, lanes)
        near = [k.mul(k.min(k.sub(left, 1), channel), p.x_c) for channel in range(c)]
        masks = [k.tail_mask(k.sub(left, half), lanes) for half in range(0, c, lanes)]
        with k.loop(0, p.width, lanes) as run:
            start = k.min(run.i, last)
            for half, mask in zip(range(0, c, lanes), masks, strict=True):
                here = k.at(x, k.mul(start, BYTES))
                rows = [k.load(vector, here, near[half + n]) for n in range(lanes)]
                for n, pixel in enumerate(transpose(k, rows)):
                    value = k.select(mask, pixel, k.const(vector, 0))
                    k.store(value, y, k.mul(start, c * BYTES), (n * c + half) * BYTES)
    with k.when(narrow):
        _gather_any(k, x, y, left)


def _gather_channels(k: Builder, x: Value, y: Value, left: Size) -> None:
    """Channels dense in x (channels_last): vectors copied, the last block masked."""
    lanes = k.isa.lanes(f32)
    p, c, vector = k.p, k.isa.block, vec(f32, lanes)
    for half in range(0, c, lanes):
        mask = k.tail_mask(k.sub(left, half), lanes)
        with k.when(k.icmp("sge", k.size(left), half + lanes)), k.loop(0, p.width) as pixel:
            value = k.load(vector, x, k.mul(pixel.i, p.x_w), half * BYTES)
            k.store(value, y, k.mul(pixel.i, c * BYTES), half * BYTES)
        with k.when(k.icmp("slt", k.size(left), half + lanes)), k.loop(0, p.width) as pixel:
            value = k.masked_load(vector, mask, x, k.mul(pixel.i, p.x_w), half * BYTES)
            k.store(value, y, k.mul(pixel.i, c * BYTES), half * BYTES)


def _gather_any(k: Builder, x: Value, y: Value, left: Size) -> None:
    """Any strides: lane by lane."""
    p, c = k.p, k.isa.block
    vector = vec(f32, c)
    mask, last = k.tail_mask(left, c), k.sub(left, 1)
    with k.loop(0, p.width) as pixel:
        value, here = k.const(vector, 0), k.at(x, k.mul(pixel.i, p.x_w))
        for lane in range(c):
            near = k.mul(k.min(last, lane), p.x_c)
            value = k.insert(value, k.load(f32, here, near), lane)
        k.store(k.select(mask, value, k.const(vector, 0)), y, k.mul(pixel.i, c * BYTES))


def _scatter_rows(k: Builder, x: Value, y: Value, left: Size) -> None:
    """Pixels dense in y: transposed in registers; a partial block leaves through the stack."""
    wide, narrow, lanes = _runs(k)
    p, c, vector, buffer = k.p, k.isa.block, vec(f32, lanes), k.alloca(lanes * lanes * BYTES)
    with k.when(wide):
        last = k.sub(p.width, lanes)
        with k.loop(0, p.width, lanes) as run:
            start = k.min(run.i, last)
            for half in range(0, c, lanes):
                here = k.at(x, k.mul(start, c * BYTES), half * BYTES)
                pixels = [k.load(vector, here, n * c * BYTES) for n in range(lanes)]
                rows, out = transpose(k, pixels), k.at(y, k.mul(start, BYTES))
                with k.when(k.icmp("sge", k.size(left), half + lanes)):
                    for n, row in enumerate(rows):
                        k.store(row, out, k.mul(p.y_c, half + n))
                with k.when(k.icmp("slt", k.size(left), half + lanes)):
                    for n, row in enumerate(rows):
                        k.store(row, buffer, n * lanes * BYTES)
                    with k.loop(0, k.sub(left, half)) as channel:
                        row = k.load(vector, buffer, k.mul(channel.i, lanes * BYTES))
                        k.store(row, out, k.mul(k.add(channel.i, half), p.y_c))
    with k.when(narrow):
        _scatter_any(k, x, y, left)


def _scatter_channels(k: Builder, x: Value, y: Value, left: Size) -> None:
    """Channels dense in y (channels_last): vectors copied, the last block masked."""
    lanes = k.isa.lanes(f32)
    p, c, vector = k.p, k.isa.block, vec(f32, lanes)
    for half in range(0, c, lanes):
        mask = k.tail_mask(k.sub(left, half), lanes)
        with k.when(k.icmp("sge", k.size(left), half + lanes)), k.loop(0, p.width) as pixel:
            value = k.load(vector, x, k.mul(pixel.i, c * BYTES), half * BYTES)
            k.store(value, y, k.mul(pixel.i, p.y_w), half * BYTES)
        with k.when(k.icmp("slt", k.size(left), half + lanes)), k.loop(0, p.width) as pixel:
            value = k.load(vector, x, k.mul(pixel.i, c * BYTES), half * BYTES)
            k.masked_store(value, mask, y, k.mul(pixel.i, p.y_w), half * BYTES)


def _scatter_any(k: Builder, x: Value, y: Value, left: Size) -> None:
    """Any strides: element by element."""
    p, pixel_bytes = k.p, k.isa.block * BYTES
    with k.loop(0, left) as channel, k.loop(0, p.width) as pixel:
        value = k.load(f32, x, k.mul(pixel.i, pixel_bytes), k.mul(channel.i, BYTES))
        k.store(value, y, k.mul(pixel.i, p.y_w), k.mul(channel.i, p.y_c))


def _clear(k: Builder, y: Value, count: Size) -> None:
    """``count`` zeros at y."""
    lanes = k.isa.lanes(f32)
    whole = k.mul(k.udiv(count, lanes), lanes)
    with k.loop(0, whole, lanes) as i:
        k.store(k.const(vec(f32, lanes), 0), y, k.mul(i.i, BYTES))
    with k.loop(whole, count) as i:
        k.store(k.const(f32, 0), y, k.mul(i.i, BYTES))


def _copy(k: Builder, x: Value, y: Value, count: Size, stride: Size | None) -> None:
    """``count`` floats to y, from x that is dense (``stride`` None) or strided by bytes."""
    lanes = k.isa.lanes(f32)
    whole: Size = 0
    if stride is None:
        whole = k.mul(k.udiv(count, lanes), lanes)
        with k.loop(0, whole, lanes) as i:
            k.store(k.load(vec(f32, lanes), x, k.mul(i.i, BYTES)), y, k.mul(i.i, BYTES))
    with k.loop(whole, count) as i:
        k.store(k.load(f32, x, k.mul(i.i, stride or BYTES)), y, k.mul(i.i, BYTES))
