"""Matrix products: C[m, n] = epilogue(A[m, k] @ B[k, n]), batched, B in packed panels.

A work unit is ``block_rows`` rows of one matrix times one panel of columns. It takes ``chunk``
terms of the reduction at a time, so that a chunk of the panel stays near while all rows pass over
it; meanwhile the next chunk is fetched from memory (all products of BERT: 454 to 484 GFLOP/s).
Each chunk is summed from zero and added late to the partial sums in scratch memory: that costs
nothing and makes the rounding error 3 to 10 times smaller than one long chain of additions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.isa import Isa
from torch_aio.codegen.types import Value, f32, i1
from torch_aio.ir.symbols import Int
from torch_aio.kernels.chain import Chain
from torch_aio.kernels.matrix_epilogue import ACCUMULATOR, MatrixEpilogue, operand_params
from torch_aio.kernels.microkernel import Sums
from torch_aio.kernels.panel import Panel, add_late, panel_columns, store_sums
from torch_aio.kernels.spec import KernelSpec

BYTES = 4


def scratch_bytes(isa: Isa, tile: tuple[int, int], block_rows: Int) -> Int:
    """Scratch a thread of ``Gemm`` with units of ``block_rows`` rows."""
    return (block_rows + tile[0]) * (panel_columns(isa, tile) * BYTES)


@dataclass(frozen=True)
class Gemm(KernelSpec):
    """C = epilogue(A @ B) for ``inner`` * outer matrices.

    A: rows ``a_row`` bytes apart, terms adjacent. B: panels [ceil(n / W)][k][W], W =
    ``panel_columns``, zero past n (``PackPanels``, ``PackedPanels``). C: columns adjacent.
    ``x_outer`` and ``x_inner``: bytes between matrices. ``tiles``: ``scratch_bytes``.
    Units: batch * ceil(m / block_rows) * ceil(n / W).
    """

    tile: tuple[int, int]
    chain: Chain = ACCUMULATOR

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The kernel's parameters, the epilogue's operands last."""
        return Params(
            "a:ptr a_outer:int a_inner:int a_row:int b:ptr b_outer:int b_inner:int "
            "c:ptr c_outer:int c_inner:int c_row:int m:int n:int k:int inner:int "
            "chunk:int block_rows:int tiles:scratch " + operand_params(self.chain)
        )

    @property
    def name(self) -> str:
        """``gemm_f32_12x2_add_gelu_1f3a9c``."""
        chain = f"_{self.chain.name}" if self.chain.name else ""
        return f"gemm_f32_{self.tile[0]}x{self.tile[1]}{chain}"

    def _panel(self, k: Builder) -> int:
        return panel_columns(k.isa, self.tile)

    def emit(self, k: Builder) -> None:
        """Chunks, then row tiles; a tile's last chunk goes through the epilogue."""
        p, width = k.p, self._panel(k)
        grid = k.ceil_div(p.n, width), k.ceil_div(p.m, p.block_rows)
        with k.loop(k.begin, k.end) as unit:
            panel, first, outer, inner = self._place(k, unit.i, grid)
            column = k.mul(panel, width)
            a = k.at(matrix_of(k, "a", outer, inner), k.mul(first, p.a_row))
            b = k.at(matrix_of(k, "b", outer, inner), k.mul(k.mul(column, BYTES), p.k))
            c = k.at(matrix_of(k, "c", outer, inner), k.mul(first, p.c_row))
            rows = k.min(p.block_rows, k.sub(p.m, first))
            columns = k.min(width, k.sub(p.n, column))
            epilogue = MatrixEpilogue.at(k, self.chain, outer, inner)
            work = Results(k, epilogue, c, first, rows, column, columns)
            with k.loop(0, k.max(p.k, 1), p.chunk) as chunk:
                terms = k.min(p.chunk, k.sub(p.k, chunk.i))
                a_chunk = k.at(a, k.mul(chunk.i, BYTES))
                b_chunk = k.at(b, k.mul(chunk.i, width * BYTES))
                following = k.at(b_chunk, k.mul(terms, width * BYTES))
                product = Panel(self.tile, a_chunk, p.a_row, b_chunk, terms, following)
                self._tiles(k, product, work, chunk.i)

    def _place(
        self, k: Builder, unit: Size, grid: tuple[Size, Size]
    ) -> tuple[Size, Size, Size, Size]:
        """Panel, first row and matrix (outer, inner) of a unit; ``grid``: panels, row blocks."""
        p, (panels, blocks) = k.p, grid
        panel, rest = k.urem(unit, panels), k.udiv(unit, panels)
        block, matrix = k.urem(rest, blocks), k.udiv(rest, blocks)
        outer, inner = k.udiv(matrix, p.inner), k.urem(matrix, p.inner)
        return panel, k.mul(block, p.block_rows), outer, inner

    def _tiles(self, k: Builder, product: Panel, unit: Results, chunk: Size) -> None:
        """All rows of the unit by one chunk of the panel.

        Cheap epilogues of whole panels work on registers, others on the tile in L1, in a loop: GELU
        on 24 registers is more code than the decoder feeds (Zen 5, 128 x 3072 x 768: 456 against
        479 GFLOP/s) and takes LLVM three times as long.
        """
        p, row = k.p, self._panel(k) * BYTES
        late, is_last = k.icmp("ne", chunk, 0), k.icmp("sge", k.add(chunk, p.chunk), p.k)
        from_registers, from_memory = k.const(i1, 0), is_last
        if self.chain.is_cheap:
            whole = k.icmp("eq", unit.columns, self._panel(k))
            from_registers = k.op("and", is_last, whole)
            from_memory = k.op("and", is_last, k.icmp("eq", whole, 0))
        with k.loop(0, unit.rows, self.tile[0]) as tile:
            slot = k.at(p.tiles, k.mul(tile.i, row))

            def finish(sums: Sums) -> None:
                sums = add_late(k, sums, slot, row, late)
                if self.chain.is_cheap:
                    with k.when(from_registers):
                        unit.store(tile.i, sums)
                with k.when(k.icmp("eq", from_registers, 0)):
                    store_sums(k, sums, slot, row)

            product.emit_tile(k, tile.i, unit.rows, finish)
            with k.when(from_memory):
                unit.store_lines(tile.i, self.tile[0], slot, row)


@dataclass(frozen=True)
class Results:
    """Where the results of a work unit go: ``rows`` from ``first``, ``columns`` from ``column``."""

    k: Builder
    epilogue: MatrixEpilogue
    c: Value
    first: Size
    rows: Size
    column: Size
    columns: Size

    def store(self, first: Size, sums: Sums) -> None:
        """The rows of a tile that exist, of a whole panel, from registers."""
        k = self.k
        for r, values in enumerate(sums):
            line = k.add(first, r)
            with k.when(k.icmp("slt", k.size(line), self.rows)):
                for v, value in enumerate(values):
                    self._store(line, v * k.isa.lanes(f32), value)

    def store_lines(self, first: Size, count: int, slot: Value, row: int) -> None:
        """The rows of a tile from memory: whole vectors, then a masked one."""
        k, lanes = self.k, self.k.isa.lanes(f32)
        whole = k.mul(k.udiv(self.columns, lanes), lanes)
        with k.loop(0, k.min(count, k.sub(self.rows, first))) as line:
            place, source = k.add(first, line.i), k.at(slot, k.mul(line.i, row))
            with k.loop(0, whole, lanes) as part:
                value = k.load(k.isa.vector(f32), source, k.mul(part.i, BYTES))
                self._store(place, part.i, value)
            with k.when(k.icmp("ne", whole, self.columns)):
                mask = k.tail_mask(k.sub(self.columns, whole), lanes)
                value = k.load(k.isa.vector(f32), source, k.mul(whole, BYTES))
                self._store(place, whole, value, mask)

    def _store(self, line: Size, column: Size, value: Value, mask: Value | None = None) -> None:
        k = self.k
        c_row, row = k.at(self.c, k.mul(line, k.p.c_row)), k.add(self.first, line)
        self.epilogue.store(value, c_row, row, k.add(self.column, column), mask)


def matrix_of(k: Builder, operand: str, outer: Size, inner: Size) -> Value:
    """The matrix ``(outer, inner)`` of an operand's batch."""
    strides = getattr(k.p, f"{operand}_outer"), getattr(k.p, f"{operand}_inner")
    base: Value = getattr(k.p, operand)
    return k.at(base, k.mul(strides[0], outer), k.mul(strides[1], inner))
