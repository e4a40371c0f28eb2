"""Few rows of f32 times a matrix of bytes: y[m, n] = t[n] * (x[m, k] @ w[k, n]), m <= 4.

Weights alone are quantised: the memory that they come from bounds the speed, so x may as well stay
exact. The panels are those of ``GemmInt8``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.types import Value, f32, i32, vec
from torch_aio.kernels import microkernel
from torch_aio.kernels.chain import Chain
from torch_aio.kernels.gemm_int8 import BYTES, matrix_of, panel_bytes
from torch_aio.kernels.matrix_epilogue import ACCUMULATOR, MatrixEpilogue, operand_params
from torch_aio.kernels.microkernel import Sums
from torch_aio.kernels.pack_int8 import HEAD
from torch_aio.kernels.spec import KernelSpec

MOST_ROWS = 4
CHUNK = 128
"""Words summed from zero before they are added late."""
AHEAD = 2048
"""Bytes between what is read and what is fetched meanwhile."""


@dataclass(frozen=True)
class GemvInt8(KernelSpec):
    """y = epilogue(x @ dequantised w), ``rows`` rows of x, for ``inner`` * outer matrices.

    ``_outer``, ``_inner`` and ``_row``: bytes apart; elements of a row lie together. w: panels of
    ``vectors`` registers (``PackedInt8``). ``k`` counts terms. Units: batch * ceil(n / W).
    """

    rows: int
    vectors: int
    chain: Chain = ACCUMULATOR

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The kernel's parameters, the epilogue's operands last."""
        return Params(
            "x:ptr x_outer:int x_inner:int x_row:int w:ptr w_outer:int w_inner:int "
            "y:ptr y_outer:int y_inner:int y_row:int n:int k:int inner:int "
            + operand_params(self.chain)
        )

    @property
    def name(self) -> str:
        """``gemv_int8_1x2_add_1f3a9c``."""
        chain = f"_{self.chain.name}" if self.chain.name else ""
        return f"gemv_int8_{self.rows}x{self.vectors}{chain}"

    def emit(self, k: Builder) -> None:
        """One panel a unit."""
        p, lanes = k.p, k.isa.lanes(f32)
        width = self.vectors * lanes
        panels, words = k.ceil_div(p.n, width), k.ceil_div(p.k, 4)
        with k.loop(k.begin, k.end) as unit:
            panel, matrix = k.urem(unit.i, panels), k.udiv(unit.i, panels)
            outer, inner = k.udiv(matrix, p.inner), k.urem(matrix, p.inner)
            x, y = (matrix_of(k, name, outer, inner) for name in ("x", "y"))
            head = k.at(matrix_of(k, "w", outer, inner), panel_bytes(k, panel, width, words))
            epilogue = MatrixEpilogue.at(k, self.chain, outer, inner)
            lines = [k.at(x, k.mul(p.x_row, row)) for row in range(self.rows)]
            sums = self._sums(k, lines, k.at(head, HEAD * width * BYTES), k.udiv(p.k, 4))
            self._store(k, epilogue, sums, (head, y, k.mul(panel, width)))

    def _sums(self, k: Builder, x: list[Value], w: Value, whole: Size) -> Sums:
        """x @ w for the panel, before scaling; the last word may be part of one."""
        zero = microkernel.zeros(k, self.rows, self.vectors)
        with k.loop(0, whole, CHUNK, carry=microkernel.flat(zero)) as chunk:
            end = k.min(whole, k.add(chunk.i, CHUNK))
            part = self._words(k, x, w, chunk.i, end)
            chunk.next = [k.fadd(a, b) for a, b in zip(chunk.v, part, strict=True)]
        first = k.mul(whole, 4)
        with k.loop(first, k.p.k, carry=chunk.v) as term:
            shift = k.sub(24, k.mul(k.sub(term.i, first), 8))
            up = k.splat(k.cast(k.size(shift), i32), k.isa.lanes(f32))
            term.next = self._term(k, x, w, (whole, term.i), up, term.v)
        return microkernel.tile(term.v, self.vectors)

    def _words(self, k: Builder, x: list[Value], w: Value, start: Size, end: Size) -> list[Value]:
        """The sums over words, with enough of each that additions do not wait for each other."""
        count = self.rows * self.vectors
        copies = max(1, 4 // self.rows)
        zero = k.const(k.isa.vector(f32), 0)
        with k.loop(start, end, carry=[zero] * (count * copies)) as word:
            sums = list(word.v)
            for line in range(0, self.vectors * k.isa.width // 8, microkernel.LINE):
                k.prefetch(w, k.mul(word.i, self.vectors * k.isa.width // 8), line + AHEAD)
            for byte in range(4):
                up = k.const(k.isa.vector(i32), 24 - 8 * byte)
                own = slice(byte % copies * count, (byte % copies + 1) * count)
                term = k.add(k.mul(word.i, 4), byte)
                sums[own] = self._term(k, x, w, (word.i, term), up, sums[own])
            word.next = sums
        parts = [word.v[n * count : (n + 1) * count] for n in range(copies)]
        while len(parts) > 1:
            pairs = zip(parts[::2], parts[1::2], strict=True)
            parts = [[k.fadd(a, b) for a, b in zip(*pair, strict=True)] for pair in pairs]
        return parts[0]

    def _term(
        self, k: Builder, x: list[Value], w: Value, place: tuple[Size, Size], up: Value,
        sums: list[Value],
    ) -> list[Value]:  # fmt: skip
        """The sums and term ``place[1]``, which ``up`` shifts to the top of word ``place[0]``."""
        (word, term), vector, size = place, k.isa.vector(i32), k.isa.width // 8
        down, sums = k.const(vector, 24), list(sums)
        for v in range(self.vectors):
            whole = k.load(vector, w, k.mul(word, self.vectors * size), v * size)
            value = k.cast(k.op("ashr", k.op("shl", whole, up), down), f32)
            for row, line in enumerate(x):
                scalar = k.broadcast(k.isa.vector(f32), line, k.mul(term, BYTES))
                n = row * self.vectors + v
                sums[n] = k.fma(scalar, value, sums[n])
        return sums

    def _store(
        self, k: Builder, epilogue: MatrixEpilogue, sums: Sums, place: tuple[Value, Value, Size]
    ) -> None:
        head, y, column = place
        lanes = k.isa.lanes(f32)
        for v in range(self.vectors):
            scale = k.load(vec(f32, lanes), head, v * lanes * BYTES)
            first = k.add(column, v * lanes)
            left = k.sub(k.p.n, first)
            for row, line in enumerate(sums):
                value, y_row = k.fmul(line[v], scale), k.at(y, k.mul(k.p.y_row, row))
                with k.when(k.icmp("sge", left, lanes)):
                    epilogue.store(value, y_row, row, first)
                partly = k.op("and", k.icmp("slt", left, lanes), k.icmp("sgt", left, 0))
                with k.when(partly):
                    epilogue.store(value, y_row, row, first, k.tail_mask(left, lanes))
