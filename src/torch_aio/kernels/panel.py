"""Rows of A times one panel of B: what a matrix product does between two blockings for cache."""

from __future__ import annotations

from dataclasses import dataclass

from torch_aio.codegen.builder import Builder, Size
from torch_aio.codegen.isa import Isa
from torch_aio.codegen.types import Value, f32
from torch_aio.kernels import microkernel
from torch_aio.kernels.microkernel import Address

BYTES = 4


def smaller_tiles(rows: int) -> tuple[int, ...]:
    """Rows of the register tiles for what full ones leave over: powers of two, every other one."""
    return (8, 4, 1) if rows > 8 else tuple(r for r in (4, 2, 1) if r < rows)


def panel_columns(isa: Isa, tile: tuple[int, int]) -> int:
    """Columns of a packed panel of B for a register tile."""
    return tile[1] * isa.lanes(f32)


@dataclass(frozen=True)
class Panel:
    """A panel [terms][W] of B, and rows ``a_row`` bytes apart from ``a`` with adjacent terms."""

    tile: tuple[int, int]
    a: Value
    a_row: Size
    b: Value
    terms: Size

    def emit(
        self, k: Builder, rows: Size, out: Value, out_row: Size, late: Value | None = None
    ) -> None:
        """Write ``rows`` x W sums to ``out``; where ``late`` holds they are added to what is there.

        Full tiles, then a smaller one, whose rows past the last repeat that one: ``out`` has room
        for a tile more than ``rows``.
        """
        count = self.tile[0]
        smaller = smaller_tiles(count)
        full = k.mul(k.udiv(rows, count), count)
        rest = k.sub(rows, full)
        ragged = k.icmp("sgt", rest, smaller[0] if smaller else 0)
        end = k.select(ragged, k.size(rows), k.size(full))
        with k.loop(0, end, count) as tile:
            self._tile(k, (tile.i, rows, count), out, out_row, late)
        for count, below in zip(smaller, (*smaller[1:], 0), strict=True):
            fits = k.op("and", k.icmp("sgt", rest, below), k.icmp("sle", rest, count))
            with k.when(fits):
                self._tile(k, (full, rows, count), out, out_row, late)

    def _tile(
        self, k: Builder, place: tuple[Size, Size, int], out: Value, out_row: Size,
        late: Value | None,
    ) -> None:  # fmt: skip
        first, rows, count = place
        vectors, last = self.tile[1], k.sub(rows, 1)
        lines = [k.min(k.add(first, r), last) for r in range(count)]
        addresses = [Address(k.at(self.a, k.mul(line, self.a_row))) for line in lines]
        sums = microkernel.zeros(k, count, vectors)
        step = panel_columns(k.isa, self.tile) * BYTES
        sums = microkernel.reduction(k, sums, addresses, BYTES, self.b, step, self.terms)
        width = k.isa.width // 8
        slot = k.at(out, k.mul(first, out_row))
        places = [(k.mul(out_row, r), v * width) for r in range(count) for v in range(vectors)]
        values = microkernel.flat(sums)
        if late is not None:
            with k.when(late, carry=values) as again:
                again.next = [
                    k.fadd(v, k.load(v.type, slot, *o)) for v, o in zip(values, places, strict=True)
                ]
            values = again.v
        for value, offsets in zip(values, places, strict=True):
            k.store(value, slot, *offsets)
