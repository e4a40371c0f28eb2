"""Rows of A times one panel of B: what a matrix product does between two blockings for cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch_aio.codegen.builder import Builder, Size
from torch_aio.codegen.isa import Isa
from torch_aio.codegen.types import Value, f32
from torch_aio.kernels import microkernel
from torch_aio.kernels.microkernel import FMA, Address, Arithmetic, Sums

BYTES = 4
Finish = Callable[[Sums], None]
"""What becomes of the sums of a tile, in registers."""


def smaller_tiles(rows: int) -> tuple[int, ...]:
    """Rows of the register tiles for what full ones leave over: powers of two, every other one."""
    return (8, 4, 1) if rows > 8 else tuple(r for r in (4, 2, 1) if r < rows)


def panel_columns(isa: Isa, tile: tuple[int, int]) -> int:
    """Columns of a packed panel of B for a register tile."""
    return tile[1] * isa.lanes(f32)


def smallest_tile(k: Builder, left: Size, rows: int, body: Callable[[int], None]) -> None:
    """``body(count)`` for the smallest register tile, of at most ``rows``, that takes ``left``."""
    sizes = (rows, *smaller_tiles(rows))
    for index, (count, below) in enumerate(zip(sizes, (*sizes[1:], 0), strict=True)):
        fits = k.icmp("sgt", left, below)
        if index:
            fits = k.op("and", fits, k.icmp("sle", left, count))
        with k.when(fits):
            body(count)


@dataclass(frozen=True)
class Panel:
    """A panel [terms][W] of B, and rows ``a_row`` bytes apart from ``a`` with adjacent terms.

    ``following``: what is fetched into L2 meanwhile (the panel's next terms), a part a tile.
    ``arithmetic``: of terms of four bytes, ``unroll`` of them a pass.
    """

    tile: tuple[int, int]
    a: Value
    a_row: Size
    b: Value
    terms: Size
    following: Value | None = None
    arithmetic: Arithmetic = FMA
    unroll: int = 0

    def emit(
        self, k: Builder, rows: Size, out: Value, out_row: Size, late: Value | None = None
    ) -> None:
        """Write ``rows`` x W sums to ``out``; where ``late`` holds they are added to what is there.

        ``out`` has room for a tile more than ``rows``.
        """
        with k.loop(0, rows, self.tile[0]) as tile:

            def store(sums: Sums) -> None:
                slot = k.at(out, k.mul(tile.i, out_row))
                store_sums(k, add_late(k, sums, slot, out_row, late), slot, out_row)

            self.emit_tile(k, tile.i, rows, store)

    def emit_tile(self, k: Builder, first: Size, rows: Size, finish: Finish) -> None:
        """The sums of the tile from row ``first`` of ``rows``, by the smallest register tile.

        Its rows past the last repeat that one.
        """

        def tile(count: int) -> None:
            finish(self._sums(k, first, rows, count))

        smallest_tile(k, k.sub(rows, first), self.tile[0], tile)

    def _sums(self, k: Builder, first: Size, rows: Size, count: int) -> Sums:
        last = k.sub(rows, 1)
        lines = [k.min(k.add(first, r), last) for r in range(count)]
        addresses = [Address(k.at(self.a, k.mul(line, self.a_row))) for line in lines]
        following = self.following
        if following is not None:
            share = microkernel.fetched_bytes(k, self.terms, self.unroll)
            following = k.at(following, k.mul(k.udiv(first, self.tile[0]), share))
        sums = microkernel.zeros(k, count, self.tile[1], self.arithmetic.element)
        step = panel_columns(k.isa, self.tile) * BYTES
        return microkernel.reduction(
            k, sums, addresses, BYTES, self.b, step, self.terms, self.unroll,
            following=following, arithmetic=self.arithmetic,
        )  # fmt: skip


def add_late(k: Builder, sums: Sums, slot: Value, row: Size, late: Value | None) -> Sums:
    """The sums plus those in memory at ``slot``, rows ``row`` bytes apart, where ``late`` holds."""
    if late is None:
        return sums
    values = microkernel.flat(sums)
    add = "fadd" if values[0].type.is_float else "add"
    with k.when(late, carry=values) as again:
        again.next = [
            k.op(add, value, k.load(value.type, slot, *place))
            for value, place in zip(values, _places(k, sums, row), strict=True)
        ]
    return microkernel.tile(again.v, len(sums[0]))


def store_sums(k: Builder, sums: Sums, slot: Value, row: Size) -> None:
    """Store the sums at ``slot``, rows ``row`` bytes apart."""
    for value, place in zip(microkernel.flat(sums), _places(k, sums, row), strict=True):
        k.store(value, slot, *place)


def _places(k: Builder, sums: Sums, row: Size) -> list[tuple[Size, Size]]:
    width = k.isa.width // 8
    return [(k.mul(row, r), v * width) for r, line in enumerate(sums) for v in range(len(line))]
