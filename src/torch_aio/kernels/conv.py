"""Direct convolution in the channel-blocked layout: one register tile of pixels x output channels.

The pixels of a tile come from a table of byte offsets, so tiles cross row ends, and stride, padding
and the shape of the plane are no business of the code; padding is a halo of zeros in memory. Where
the pixels of every tile lie evenly in x, one pointer serves them all: that frees the registers for
larger tiles. Taps are a run-time loop: 1x1, 3x3 and 5x5 share one kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.types import Value, f32, i32, i64
from torch_aio.kernels import chain as chains
from torch_aio.kernels.blocked import (
    ACCUMULATOR,
    Epilogue,
    full_operands,
    operand_params,
)
from torch_aio.kernels.chain import Chain, itemsize
from torch_aio.kernels.conv_tiles import Tile
from torch_aio.kernels.microkernel import (
    FMA,
    Address,
    Arithmetic,
    Term,
    accumulate,
    flat,
    tile,
    zeros,
)
from torch_aio.kernels.spec import KernelSpec

BYTES = 4
ENTRY = 4
"""Bytes of an entry of the pixel table."""
EVEN_TERMS = 8
"""Channels of a block that are unrolled for these tiles: with 16 the scheduler hoists loads until
12x2 and 14x2 spill (1x1 576>96@14: 146 and 128 GF/s, with 8 243 and 252); with 4 14x2 does."""
OVERREAD = 64
"""Pixels past the end of x that must be readable: tails of rows are computed and thrown away."""


@dataclass(frozen=True)
class _Panel:
    """The output channels of one register tile: their weights for this chunk, where they go."""

    weights: Value
    following: Value
    blocks: Size
    last: Size
    x: Value
    parts: list[tuple[Value, Value, Epilogue]]
    is_later: Value
    is_last: Value
    is_partial: Value


@dataclass(frozen=True)
class Conv(KernelSpec):
    """y = epilogue(x * w): y blocked, w packed by ``pack_conv.PackConv``.

    x points at the first tap of output pixel 0. It is blocked; or, where ``columns`` > 0, planar
    (one channel a block) with ``columns`` neighbouring taps, ``dilation`` apart, to a step:
    ``kernel_w`` counts these steps then, ``tap_column`` is their distance.

    ``table``: rows of ``pixels`` i32 (a multiple of the tile's pixels, the last pixel repeated):
    byte offsets of every output pixel in x, in y, and in each "full" operand of the epilogue.
    ``step`` > 0: the pixels of a tile lie so many bytes apart in x, and the table names the first;
    what repeated pixels read past the end of a row is overwritten by the value of the last one.
    ``in_blocks`` input blocks (of the last one ``last_terms`` channels count, up to a multiple of
    ``EVEN_TERMS`` with ``step``), ``out_vectors`` output vectors (of whole blocks) a group;
    ``tap_row``, ``tap_column``: bytes of x between taps. Sums of ``chunk`` input blocks at a time
    are added late: no slower, 3 to 10 times more accurate; y holds them meanwhile, so it must not
    be an operand's memory, nor other than f32 unless ``chunk`` is all.
    ``prefetch`` (0 or 1) fetches the weights of the next panel during this one.

    Units: ceil(panels * groups / panels_a_unit) * batch * (pixels / tile), where
    panels = ceil(out_vectors / tile). Consecutive units are taken together, ``tiles_a_block`` tiles
    for one pass over the weights.
    ``masked``: the last channel block has padding lanes (one group only).
    """

    tile: Tile
    columns: int = 0
    dilation: int = 1
    step: int = 0
    masked: bool = False
    chain: Chain = ACCUMULATOR
    arithmetic: ClassVar[Arithmetic] = FMA

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The kernel's parameters, the epilogue's operands last."""
        return Params(
            "x:ptr x_batch:int x_block:int tap_row:int tap_column:int w:ptr "
            "y:ptr y_batch:int y_block:int table:ptr batch:int pixels:int channels:int "
            "groups:int in_blocks:int last_terms:int out_vectors:int kernel_h:int kernel_w:int "
            "chunk:int panels_a_unit:int tiles_a_block:int prefetch:int "
            + operand_params(self.chain, rows=False)
        )

    @property
    def name(self) -> str:
        """``conv_f32_6x4_relu_1f3a9c``."""
        pixels, vectors = self.tile
        dilation = f"d{self.dilation}" if self.dilation > 1 else ""
        planar = f"_planar{self.columns}{dilation}" if self.columns else ""
        step = f"_by{self.step}" if self.step else ""
        tail = "_tail" if self.masked else ""
        chain = f"_{self.chain.name}" if self.chain.name else ""
        return f"conv_f32_{pixels}x{vectors}{planar}{step}{tail}{chain}"

    def emit(self, k: Builder) -> None:
        """Blocks of tiles > chunks of input > panels of output > tiles > taps."""
        p = k.p
        tiles, panels = k.udiv(p.pixels, self.tile[0]), k.ceil_div(p.out_vectors, self.tile[1])
        with k.loop(k.udiv(k.begin, tiles), k.ceil_div(k.end, tiles)) as run:
            start = k.mul(run.i, tiles)
            first = k.sub(k.max(start, k.begin), start)
            last = k.min(k.sub(k.end, start), tiles)
            batch = k.urem(run.i, p.batch)
            begin = k.mul(k.udiv(run.i, p.batch), p.panels_a_unit)
            end = k.min(k.add(begin, p.panels_a_unit), k.mul(panels, p.groups))
            with k.loop(first, last, p.tiles_a_block) as block:
                stop = k.min(k.add(block.i, p.tiles_a_block), last)
                with k.loop(0, p.in_blocks, p.chunk) as chunk, k.loop(begin, end) as panel:
                    work = self._panel(k, batch, chunk.i, panel.i, panels)
                    self._tiles(k, work, block.i, stop)

    def _panel(self, k: Builder, batch: Size, chunk: Size, panel: Size, panels: Size) -> _Panel:
        p = k.p
        group, part = k.udiv(panel, panels), k.urem(panel, panels)
        stop = k.min(k.add(chunk, p.chunk), p.in_blocks)
        block_bytes = k.mul(k.mul(p.kernel_h, p.kernel_w), self._tap_bytes(k))
        first = k.mul(k.add(k.mul(panel, p.in_blocks), chunk), block_bytes)
        weights = k.at(self._weights(k, panels), first)
        source = k.mul(k.add(k.mul(group, p.in_blocks), chunk), p.x_block)
        return _Panel(
            weights,
            k.at(weights, k.mul(p.in_blocks, block_bytes)),
            k.sub(stop, chunk),
            k.sub(k.sub(p.in_blocks, 1), chunk),
            k.at(p.x, k.mul(batch, p.x_batch), source),
            [self._part(k, batch, group, k.add(k.mul(part, self.tile[1]), j))
             for j in range(self.tile[1])],
            k.icmp("ne", k.size(chunk), 0),
            k.icmp("eq", k.size(stop), p.in_blocks),
            k.icmp("ne", k.size(stop), p.in_blocks),
        )  # fmt: skip

    def _weights(self, k: Builder, _panels: Size) -> Value:
        """Where the weights begin, of so many panels a group."""
        where: Value = k.p.w
        return where

    def _terms(self, k: Builder) -> int:
        """Terms of a channel block."""
        return k.isa.block

    def _tap_bytes(self, k: Builder) -> int:
        """Bytes of the weights of one step of the tap loops."""
        return (self.columns or self._terms(k)) * self.tile[1] * k.isa.width // 8

    def _part(
        self, k: Builder, batch: Size, group: Size, vector: Size
    ) -> tuple[Value, Value, Epilogue]:
        """Whether an output vector of a group exists, where it goes, what happens on the way."""
        p, lanes = k.p, k.isa.lanes(f32)
        exists = k.icmp("slt", k.size(vector), p.out_vectors)
        near = k.add(k.mul(group, p.out_vectors), k.min(vector, k.sub(p.out_vectors, 1)))
        per_block = k.isa.block // lanes
        block, lane = k.udiv(near, per_block), k.mul(k.urem(near, per_block), lanes)
        y = k.at(p.y, k.mul(batch, p.y_batch), k.mul(block, p.y_block),
                 k.mul(lane, itemsize(self.chain.result)))  # fmt: skip
        channels = p.channels if self.masked else None
        return exists, y, Epilogue.at(k, self.chain, batch, block, lane, channels)

    def _tiles(self, k: Builder, panel: _Panel, first: Size, stop: Size) -> None:
        p, (pixels, vectors) = k.p, self.tile
        lines = k.mul(p.prefetch, k.mul(panel.blocks, k.mul(p.kernel_h, p.kernel_w)))
        share = k.ceil_div(k.mul(lines, self._tap_bytes(k)), k.sub(stop, first))
        with k.loop(first, stop) as spot:
            ahead = k.mul(k.sub(spot.i, first), share)
            with k.loop(ahead, k.add(ahead, share), 64) as line:
                k.prefetch(panel.following, line.i)
            entry = k.at(p.table, k.mul(spot.i, pixels * ENTRY))
            sums = self._product(k, panel, self._sources(k, panel.x, entry))
            for j in range(vectors):
                self._finish(k, panel, entry, j, [sums[n * vectors + j] for n in range(pixels)])

    def _sources(self, k: Builder, x: Value, entry: Value) -> list[Address]:
        """Where the pixels of a tile begin."""
        pixels = range(self.tile[0])
        if not self.step:
            return [Address(k.at(x, self._offset(k, entry, 0, n))) for n in pixels]
        first = k.at(x, self._offset(k, entry, 0, 0))
        return [Address(first, (n * self.step,)) for n in pixels]

    def _product(self, k: Builder, panel: _Panel, sources: list[Address]) -> list[Value]:
        """The sums over the chunk's blocks and all taps."""
        p, (pixels, vectors) = k.p, self.tile
        state = [panel.weights, *flat(zeros(k, pixels, vectors, self.arithmetic.element))]
        with k.loop(0, panel.blocks, carry=state) as block:
            is_last = k.icmp("eq", block.i, panel.last)
            terms = k.select(is_last, k.size(p.last_terms), k.size(self._terms(k)))
            with k.loop(0, p.kernel_h, carry=block.v) as row:
                offset = k.add(k.mul(block.i, p.x_block), k.mul(row.i, p.tap_row))
                with k.loop(0, p.kernel_w, carry=row.v) as column:
                    tap = k.add(offset, k.mul(column.i, p.tap_column))
                    here = [s.moved(tap) for s in sources]
                    column.next = self._tap(k, here, column.v, terms)
                row.next = column.v
            block.next = row.v
        return block.v[1:]

    def _tap(self, k: Builder, rows: list[Address], state: list[Value], terms: Size) -> list[Value]:
        """The products of one step of the tap loops; ``state``: the weights, the sums."""
        (pixels, vectors), weights = self.tile, state[0]
        size = vectors * k.isa.width // 8
        count, apart = (self.columns, self.dilation) if self.columns else (self._terms(k), 1)
        if not self.columns:  # the next tile: +15 % on 1x1 256>64@56, no loss elsewhere
            for row in rows:
                k.prefetch(row.pointer, *row.offsets, pixels * (self.step or count * BYTES))
        unroll = EVEN_TERMS if self.step and not self.columns else count
        steps = [Term(n * apart * BYTES, n * size) for n in range(unroll)]
        following = k.at(weights, count * size)
        how = self.arithmetic.load, self.arithmetic
        if unroll >= count:
            sums = accumulate(k, tile(state[1:], vectors), rows, weights, steps[:count], *how)
            return [following, *flat(sums)]
        with k.loop(0, terms, unroll, carry=state[1:]) as part:
            here = [row.moved(k.mul(part.i, BYTES)) for row in rows]
            w = k.at(weights, k.mul(part.i, size))
            part.next = flat(accumulate(k, tile(part.v, vectors), here, w, steps, *how))
        return [following, *part.v]

    def _finish(
        self, k: Builder, panel: _Panel, entry: Value, part: int, sums: list[Value]
    ) -> None:
        """Add what earlier chunks left in y; store, through the epilogue after the last chunk.

        All sums are loaded before one is stored, and the first pixel is stored last: a tile may
        hold the last pixel several times, and only the first of these is surely right.
        """
        exists, y, epilogue = panel.parts[part]
        operands = range(2, 2 + len(full_operands(self.chain)))
        with k.when(exists):
            places = [k.at(y, self._offset(k, entry, 1, n)) for n in range(len(sums))]
            with k.when(panel.is_later, carry=sums) as late:
                earlier = [k.load(s.type, place) for s, place in zip(sums, places, strict=True)]
                add = "fadd" if sums[0].type.is_float else "add"
                late.next = [k.op(add, a, b) for a, b in zip(late.v, earlier, strict=True)]
            with k.when(panel.is_partial):
                for value, place in [*zip(late.v, places, strict=True)][::-1]:
                    k.store(value, place)
            with k.when(panel.is_last):
                for n, (value, place) in [*enumerate(zip(late.v, places, strict=True))][::-1]:
                    offsets = [self._offset(k, entry, column, n) for column in operands]
                    chains.store(k, epilogue(value, offsets), place)

    @staticmethod
    def _offset(k: Builder, entry: Value, column: int, pixel: int) -> Value:
        """An entry of the pixel table: a byte offset."""
        row = k.mul(k.p.pixels, column * ENTRY)
        return k.cast(k.load(i32, entry, row, pixel * ENTRY), i64)
