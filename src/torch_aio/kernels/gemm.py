"""Matrix products: C[m, n] = epilogue(A[m, k] @ B[k, n]), batched, B in packed panels.

A work unit is ``block_rows`` rows of one matrix times one panel of columns. It takes ``chunk``
terms of the reduction at a time, so that a chunk of the panel stays in L1 while all rows pass over
it. Each chunk is summed from zero and added late to the partial sums in scratch memory: that costs
nothing and makes the rounding error 3 to 10 times smaller than one long chain of additions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.isa import Isa
from torch_aio.codegen.types import Value, f32
from torch_aio.ir.symbols import Int
from torch_aio.kernels.chain import Chain
from torch_aio.kernels.matrix_epilogue import ACCUMULATOR, MatrixEpilogue, operand_params
from torch_aio.kernels.panel import Panel, panel_columns
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
        """Chunks, row tiles, then the epilogue over the rows of the unit."""
        p, width = k.p, self._panel(k)
        panels, blocks = k.ceil_div(p.n, width), k.ceil_div(p.m, p.block_rows)
        with k.loop(k.begin, k.end) as unit:
            panel, rest = k.urem(unit.i, panels), k.udiv(unit.i, panels)
            block, matrix = k.urem(rest, blocks), k.udiv(rest, blocks)
            outer, inner = k.udiv(matrix, p.inner), k.urem(matrix, p.inner)
            first, column = k.mul(block, p.block_rows), k.mul(panel, width)
            rows = k.min(p.block_rows, k.sub(p.m, first))
            a = k.at(p.a, *_place(k, "a", outer, inner), k.mul(first, p.a_row))
            b = k.at(p.b, *_place(k, "b", outer, inner), k.mul(k.mul(column, BYTES), p.k))
            c = k.at(p.c, *_place(k, "c", outer, inner), k.mul(first, p.c_row))
            with k.loop(0, k.max(p.k, 1), p.chunk) as chunk:
                terms = k.min(p.chunk, k.sub(p.k, chunk.i))
                a_chunk = k.at(a, k.mul(chunk.i, BYTES))
                b_chunk = k.at(b, k.mul(chunk.i, width * BYTES))
                late = k.icmp("ne", chunk.i, 0)
                product = Panel(self.tile, a_chunk, p.a_row, b_chunk, terms)
                product.emit(k, rows, p.tiles, width * BYTES, late)
            epilogue = MatrixEpilogue.at(k, self.chain, outer, inner)
            self._finish(k, epilogue, c, (first, rows), column)

    def _finish(
        self, k: Builder, epilogue: MatrixEpilogue, c: Value, rows: tuple[Size, Size], column: Size
    ) -> None:
        """The epilogue over the unit's rows: whole vectors, then a masked one."""
        first, count = rows
        lanes, width = k.isa.lanes(f32), self._panel(k)
        columns = k.min(width, k.sub(k.p.n, column))
        with k.loop(0, count) as line:
            source = k.at(k.p.tiles, k.mul(line.i, width * BYTES))
            c_row = k.at(c, k.mul(line.i, k.p.c_row))
            row, vector = k.add(first, line.i), k.isa.vector(f32)
            whole = k.mul(k.udiv(columns, lanes), lanes)
            with k.loop(0, whole, lanes) as part:
                value = k.load(vector, source, k.mul(part.i, BYTES))
                epilogue.store(value, c_row, row, k.add(column, part.i))
            with k.when(k.icmp("ne", whole, columns)):
                mask = k.tail_mask(k.sub(columns, whole), lanes)
                value = k.load(vector, source, k.mul(whole, BYTES))
                epilogue.store(value, c_row, row, k.add(column, whole), mask)


def _place(k: Builder, operand: str, outer: Size, inner: Size) -> tuple[Size, Size]:
    strides = getattr(k.p, f"{operand}_outer"), getattr(k.p, f"{operand}_inner")
    return k.mul(strides[0], outer), k.mul(strides[1], inner)
