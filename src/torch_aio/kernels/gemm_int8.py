"""Matrix products of bytes: C = epilogue(A @ B), A quantised by row, B by column, sums exact.

    c[m, n] = s[m] * t[n] * (sum_k q[m, k] * w[k, n] - z[m] * sum_k w[k, n])

The sums are i32 and cannot overflow up to ``MOST_TERMS`` terms: only the scaling rounds. A term of
the blocking that is shared with ``Gemm`` is a word: four bytes of a row, four of a column.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.types import Value, f32, i32, vec
from torch_aio.kernels.gemm import Gemm, Results, matrix_of
from torch_aio.kernels.matrix_epilogue import MatrixEpilogue, operand_params
from torch_aio.kernels.microkernel import DOT
from torch_aio.kernels.pack_int8 import HEAD
from torch_aio.kernels.panel import Panel

BYTES = 4


@dataclass(frozen=True)
class GemmInt8(Gemm):
    """C = epilogue(dequantised A @ B) for ``inner`` * outer matrices.

    A: rows of words, ``a_row`` bytes apart; info: scale and zero of each, ``info_row`` bytes apart
    (``QuantiseRows``). B: panels (``PackedInt8``). ``k`` and ``chunk`` count words. The rest is as
    in ``Gemm``.
    """

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The kernel's parameters, the epilogue's operands last."""
        return Params(
            "a:ptr a_outer:int a_inner:int a_row:int "
            "info:ptr info_outer:int info_inner:int info_row:int b:ptr b_outer:int b_inner:int "
            "c:ptr c_outer:int c_inner:int c_row:int m:int n:int k:int inner:int "
            "chunk:int block_rows:int tiles:scratch " + operand_params(self.chain)
        )

    @property
    def name(self) -> str:
        """``gemm_int8_12x2_add_gelu_1f3a9c``."""
        chain = f"_{self.chain.name}" if self.chain.name else ""
        return f"gemm_int8_{self.tile[0]}x{self.tile[1]}{chain}"

    def emit(self, k: Builder) -> None:
        """Chunks, then row tiles; a tile's last chunk goes through the epilogue."""
        p, width = k.p, self._panel(k)
        grid = k.ceil_div(p.n, width), k.ceil_div(p.m, p.block_rows)
        with k.loop(k.begin, k.end) as unit:
            panel, first, outer, inner = self._place(k, unit.i, grid)
            column = k.mul(panel, width)
            a, c = (
                k.at(matrix_of(k, name, outer, inner), k.mul(first, getattr(p, f"{name}_row")))
                for name in ("a", "c")
            )
            head = k.at(matrix_of(k, "b", outer, inner), panel_bytes(k, panel, width, p.k))
            epilogue = Dequantised(
                k, self.chain, MatrixEpilogue.at(k, self.chain, outer, inner).pointers,
                matrix_of(k, "info", outer, inner), k.at(head, k.mul(column, -BYTES)), width,
            )  # fmt: skip
            rows = k.min(p.block_rows, k.sub(p.m, first))
            columns = k.min(width, k.sub(p.n, column))
            work = Results(k, epilogue, c, first, rows, column, columns)
            b, dot = k.at(head, HEAD * width * BYTES), k.isa.dot
            assert dot is not None, k.isa.name
            with k.loop(0, k.max(p.k, 1), p.chunk) as chunk:
                words = k.min(p.chunk, k.sub(p.k, chunk.i))
                b_chunk = k.at(b, k.mul(chunk.i, width * BYTES))
                following = k.at(b_chunk, k.mul(words, width * BYTES))
                product = Panel(
                    self.tile, k.at(a, k.mul(chunk.i, BYTES)), p.a_row, b_chunk, words, following,
                    DOT, dot.unroll,
                )  # fmt: skip
                self._tiles(k, product, work, chunk.i)


@dataclass
class Dequantised(MatrixEpilogue):
    """An epilogue whose accumulator is sums of bytes (i32, or their bits as f32).

    ``info`` of the matrix's rows; ``head`` of the panel, moved back to column 0; ``width`` columns
    a panel.
    """

    info: Value
    head: Value
    width: int

    def store(
        self, accumulator: Value, c_row: Value, row: Size, column: Size, mask: Value | None = None
    ) -> None:
        """Scale the sums and apply the chain; see ``MatrixEpilogue``."""
        k, lanes = self.k, accumulator.type.lanes
        line, head = (
            k.at(self.info, k.mul(row, k.p.info_row)),
            k.at(self.head, k.mul(column, BYTES)),
        )
        scale, zero = k.splat(k.load(f32, line), lanes), k.splat(k.load(i32, line, 4), lanes)
        scales, sums = (
            k.load(vec(f32, lanes), head),
            k.load(vec(i32, lanes), head, self.width * BYTES),
        )
        total = k.bitcast(accumulator, vec(i32, lanes))
        exact = k.op("sub", total, k.op("mul", zero, sums))
        value = k.fmul(k.cast(exact, f32), k.fmul(scale, scales))
        super().store(value, c_row, row, column, mask)


def panel_bytes(k: Builder, panel: Size, width: int, words: Size) -> Size:
    """Where panel number ``panel`` of ``PackedInt8`` begins."""
    return k.mul(k.mul(panel, width * BYTES), k.add(words, HEAD))
