"""Matrix products by seven products of half the size: Strassen's algorithm in Winograd's form.

    S1 = A21 + A22    S2 = S1 - A11    S3 = A11 - A21    S4 = A12 - S2     step ``HalfSums``
    T1 = B12 - B11    T2 = B22 - T1    T3 = B22 - B12    T4 = B21 - T2     ``StrassenPanels``

    P0 = A11 B11    P1 = A12 B21    P2 = S2 T2    P3 = S3 T3    P4 = A22 T4    P5 = S1 T1
    P6 = S4 B22

    X = P0                C11 = X + P1
    X = X + P2            Y = X + P3           C21 = Y + P4
    C22 = Y + P5          X = X + P5           C12 = X + P6

An eighth fewer multiplications, for 7/4 of the weights in memory and about twice the rounding error
(whole networks, plain, by this, eager: BERT-base 6.7e-7, 11.4e-7, 5.1e-7; ViT-B/16 9.5e-7, 20.5e-7,
8.8e-7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.isa import Isa
from torch_aio.codegen.types import Value, f32, i1
from torch_aio.ir.symbols import Int
from torch_aio.kernels.chain import Chain
from torch_aio.kernels.gemm import Results
from torch_aio.kernels.matrix_epilogue import ACCUMULATOR, MatrixEpilogue, operand_params
from torch_aio.kernels.microkernel import Sums
from torch_aio.kernels.pack_strassen import PRODUCTS
from torch_aio.kernels.panel import Panel, add_late, panel_columns, store_sums
from torch_aio.kernels.spec import KernelSpec

BYTES = 4
SUMS = 4
"""Sums of blocks of A in memory."""
BOTH = 5
"""The product that goes into two sums."""


def scratch_bytes(isa: Isa, tile: tuple[int, int], block_rows: Int) -> Int:
    """Scratch a thread of ``Strassen`` with units of ``block_rows`` rows: X, Y and a result."""
    return (block_rows + tile[0]) * (3 * panel_columns(isa, tile) * BYTES)


@dataclass(frozen=True)
class HalfSums(KernelSpec):
    """sums [4][ceil(m / 2)][k / 2] = S2, S3, S1, S4 of A [m][k], a row past the last being zero.

    k / 2 is a multiple of the lanes. Units: ceil(m / 2) rows.
    """

    params: ClassVar[Params] = Params("a:ptr a_row:int sums:ptr m:int k:int")

    @property
    def name(self) -> str:
        """``strassen_sums_f32``."""
        return "strassen_sums_f32"

    def emit(self, k: Builder) -> None:
        """Row r of A with row r + ceil(m / 2)."""
        half = k.ceil_div(k.p.m, 2)
        with k.loop(k.begin, k.end) as row:
            below = k.add(row.i, half)
            exists = k.icmp("slt", k.size(below), k.p.m)
            with k.when(exists):
                self._row(k, row.i, half, k.at(k.p.a, k.mul(below, k.p.a_row)))
            with k.when(k.icmp("eq", exists, 0)):
                self._row(k, row.i, half, None)

    def _row(self, k: Builder, row: Size, half: Size, below: Value | None) -> None:
        right = k.mul(k.udiv(k.p.k, 2), BYTES)
        above = k.at(k.p.a, k.mul(row, k.p.a_row))
        out = k.at(k.p.sums, k.mul(row, right))
        vector = k.isa.vector(f32)
        with k.loop(0, right, k.isa.width // 8) as part:
            a11, a12 = (k.load(vector, above, part.i, side) for side in (0, right))
            a21 = a22 = k.const(vector, 0)
            if below is not None:
                a21, a22 = (k.load(vector, below, part.i, side) for side in (0, right))
            s1, s3 = k.fadd(a21, a22), k.fsub(a11, a21)
            s2 = k.fsub(s1, a11)
            for n, value in enumerate((s2, s3, s1, k.fsub(a12, s2))):
                k.store(value, out, part.i, k.mul(k.mul(half, right), n))


@dataclass(frozen=True)
class Strassen(KernelSpec):
    """C = epilogue(A @ B) for one matrix A [m][k] and a constant B.

    A and C: rows ``a_row`` and ``c_row`` bytes apart; sums: of ``HalfSums``; b: ``StrassenPanels``.
    ``tiles``: ``scratch_bytes``. Units: ceil(ceil(m / 2) / block_rows) * n / 2W.
    """

    tile: tuple[int, int]
    chain: Chain = ACCUMULATOR

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The kernel's parameters, the epilogue's operands last."""
        return Params(
            "a:ptr a_row:int sums:ptr b:ptr c:ptr c_row:int m:int n:int k:int chunk:int "
            "block_rows:int tiles:scratch " + operand_params(self.chain)
        )

    @property
    def name(self) -> str:
        """``strassen_f32_6x4_add_gelu_1f3a9c``."""
        chain = f"_{self.chain.name}" if self.chain.name else ""
        return f"strassen_f32_{self.tile[0]}x{self.tile[1]}{chain}"

    def emit(self, k: Builder) -> None:
        """The seven products of a block of rows of both halves by a panel of each half."""
        p, width = k.p, panel_columns(k.isa, self.tile)
        half = k.ceil_div(p.m, 2)
        panels = k.udiv(p.n, 2 * width)
        with k.loop(k.begin, k.end) as unit:
            panel, first = k.urem(unit.i, panels), k.mul(k.udiv(unit.i, panels), p.block_rows)
            above = k.min(p.block_rows, k.sub(half, first))
            below = k.min(above, k.sub(k.sub(p.m, half), first))
            with k.loop(0, PRODUCTS) as number:
                spot = _Product(k, number.i, half, first, (above, below))
                self._product(k, spot, panel)

    def _product(self, k: Builder, product: _Product, panel: Size) -> None:
        p, width, half_k = k.p, panel_columns(k.isa, self.tile), k.udiv(k.p.k, 2)
        a, a_row, rows = product.left()
        place = k.add(k.mul(panel, PRODUCTS), product.number)
        b = k.at(p.b, k.mul(k.mul(place, half_k), width * BYTES))
        results = product.results(self.chain, k.mul(panel, width), width)
        with k.loop(0, half_k, p.chunk) as chunk:
            terms = k.min(p.chunk, k.sub(half_k, chunk.i))
            b_chunk = k.at(b, k.mul(chunk.i, width * BYTES))
            following = k.at(b_chunk, k.mul(terms, width * BYTES))
            a_chunk = k.at(a, k.mul(chunk.i, BYTES))
            left = Panel(self.tile, a_chunk, a_row, b_chunk, terms, following)
            self._tiles(k, product, left, rows, results, chunk.i)

    def _tiles(
        self, k: Builder, product: _Product, panel: Panel, rows: Size, results: Results,
        chunk: Size,
    ) -> None:  # fmt: skip
        p, row = k.p, panel_columns(k.isa, self.tile) * BYTES
        x, earlier, kept = product.slots(self.tile[0], row, chunk)
        late = k.op("or", k.icmp("ne", chunk, 0), k.icmp("ne", product.number, 0))
        both = k.icmp("eq", product.number, BOTH)
        is_last = k.icmp("sge", k.add(chunk, p.chunk), k.udiv(p.k, 2))
        ends = k.op("and", is_last, product.has_result())
        in_registers = ends if self.chain.is_cheap else k.const(i1, 0)
        with k.loop(0, rows, self.tile[0]) as tile:
            slots = [k.at(slot, k.mul(tile.i, row)) for slot in (x, earlier, kept)]

            def finish(sums: Sums) -> None:
                with k.when(both):
                    store_sums(k, add_late(k, sums, slots[0], row, both), slots[0], row)
                sums = add_late(k, sums, slots[1], row, late)
                if self.chain.is_cheap:
                    with k.when(in_registers):
                        results.store(tile.i, sums)
                with k.when(k.icmp("eq", in_registers, 0)):
                    store_sums(k, sums, slots[2], row)

            panel.emit_tile(k, tile.i, rows, finish)
            if not self.chain.is_cheap:
                with k.when(ends):
                    results.store_lines(tile.i, self.tile[0], slots[2], row)


@dataclass(frozen=True)
class _Product:
    """One of the seven products of the rows from ``first`` of both halves.

    ``rows``: how many of the upper and of the lower half.
    """

    k: Builder
    number: Value
    half: Size
    first: Size
    rows: tuple[Size, Size]

    def left(self) -> tuple[Value, Size, Size]:
        """The left factor, the bytes between its rows, and their number."""
        k, p = self.k, self.k.p
        s_row = k.mul(k.udiv(p.k, 2), BYTES)
        a, s = k.at(p.a, k.mul(self.first, p.a_row)), k.at(p.sums, k.mul(self.first, s_row))
        s2, s3, s1, s4 = (k.at(s, k.mul(k.mul(self.half, s_row), n)) for n in range(SUMS))
        a22 = k.at(a, k.mul(self.half, p.a_row), s_row)
        above, below = self.rows
        return (
            self._pick([a, k.at(a, s_row), s2, s3, a22, s1, s4]),
            self._pick([p.a_row, p.a_row, s_row, s_row, p.a_row, s_row, s_row]),
            self._pick([above, above, above, above, below, above, above]),
        )

    def slots(self, tile: int, row: int, chunk: Size) -> tuple[Value, Value, Value]:
        """X, what the product is added to, and where the sum is kept."""
        k = self.k
        size = k.mul(k.add(k.p.block_rows, tile), row)
        x, y, z = (k.at(k.p.tiles, k.mul(size, n)) for n in range(3))
        kept = self._pick([x, z, x, y, z, y, x])
        earlier = k.select(k.icmp("eq", chunk, 0), self._pick([x, x, x, x, y, y, x]), kept)
        return x, earlier, kept

    def has_result(self) -> Value:
        """Whether the product completes a block of C."""
        k = self.k
        return k.icmp("ne", self._pick([0, 1, 0, 0, 1, 1, 1]), 0)

    def results(self, chain: Chain, column: Size, width: int) -> Results:
        """The block of C that it completes."""
        k, p = self.k, self.k.p
        above, below = self.rows
        zero, right = k.size(0), k.udiv(p.n, 2)
        row = k.add(self.first, self._pick([zero, zero, zero, zero, self.half, self.half, zero]))
        column = k.add(column, self._pick([zero, zero, zero, zero, zero, right, right]))
        rows = self._pick([above, above, above, above, below, below, above])
        c = k.at(p.c, k.mul(row, p.c_row))
        return Results(k, MatrixEpilogue.at(k, chain, 0, 0), c, row, rows, column, width)

    def _pick(self, values: Sequence[Size]) -> Value:
        """The value of this product."""
        k = self.k
        *others, found = map(k.size, values)
        for n, value in enumerate(others):
            found = k.select(k.icmp("eq", self.number, n), value, found)
        return found
