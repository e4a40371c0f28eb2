"""Few rows times a matrix of bytes that is read once: C = epilogue(A @ B), m <= 4.

The memory of the weights bounds the speed, so activations may as well have two digits (16 bits, or
14 where a byte of them has seven): what is left is the error of quantised weights. The panels are
those of ``GemmInt8``.

    c[m, n] = s[m] t[n] ((levels + 1) (sum_k h w - z_h sum_k w) + (sum_k l w - z_l sum_k w))

f32 activations instead took 15 instructions for 64 weights, and reached 18 of 28 GB/s.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.types import Value, f32, i32, vec
from torch_aio.kernels import microkernel
from torch_aio.kernels.chain import Chain
from torch_aio.kernels.gemm import matrix_of
from torch_aio.kernels.gemm_int8 import BYTES, panel_bytes
from torch_aio.kernels.matrix_epilogue import ACCUMULATOR, MatrixEpilogue, operand_params
from torch_aio.kernels.microkernel import DOT, Address, Sums, Term
from torch_aio.kernels.pack_int8 import HEAD
from torch_aio.kernels.spec import KernelSpec

MOST_ROWS = 4
DIGITS = 2
"""Bytes an activation."""
AHEAD = 2048
"""Bytes between what is read and what is fetched meanwhile."""


@dataclass(frozen=True)
class GemvInt8(KernelSpec):
    """C = epilogue(dequantised A @ B), ``rows`` rows of A, for ``inner`` * outer matrices.

    A: for each row ``DIGITS`` rows of words, ``a_digit`` bytes apart; info: scale and zeros
    (``QuantiseRows``). B: panels of ``vectors`` registers (``PackedInt8``). ``k`` counts words.
    Units: batch * ceil(n / W).
    """

    rows: int
    vectors: int
    chain: Chain = ACCUMULATOR

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The kernel's parameters, the epilogue's operands last."""
        return Params(
            "a:ptr a_outer:int a_inner:int a_row:int a_digit:int "
            "info:ptr info_outer:int info_inner:int info_row:int b:ptr b_outer:int b_inner:int "
            "c:ptr c_outer:int c_inner:int c_row:int n:int k:int inner:int "
            + operand_params(self.chain)
        )

    @property
    def name(self) -> str:
        """``gemv_int8_1x2_add_1f3a9c``."""
        chain = f"_{self.chain.name}" if self.chain.name else ""
        return f"gemv_int8_{self.rows}x{self.vectors}{chain}"

    def emit(self, k: Builder) -> None:
        """One panel a unit."""
        p, width = k.p, self.vectors * k.isa.lanes(f32)
        panels = k.ceil_div(p.n, width)
        with k.loop(k.begin, k.end) as unit:
            panel, matrix = k.urem(unit.i, panels), k.udiv(unit.i, panels)
            outer, inner = k.udiv(matrix, p.inner), k.urem(matrix, p.inner)
            a, info, c = (matrix_of(k, name, outer, inner) for name in ("a", "info", "c"))
            head = k.at(matrix_of(k, "b", outer, inner), panel_bytes(k, panel, width, p.k))
            rows = [
                k.at(a, k.mul(p.a_row, row), k.mul(p.a_digit, digit))
                for row in range(self.rows)
                for digit in range(DIGITS)
            ]
            sums = self._sums(k, rows, k.at(head, HEAD * width * BYTES))
            epilogue = MatrixEpilogue.at(k, self.chain, outer, inner)
            for row in range(self.rows):
                line = k.at(info, k.mul(p.info_row, row))
                numbers = self._numbers(k, sums[DIGITS * row :][:DIGITS], line, head)
                place = row, k.at(c, k.mul(p.c_row, row)), k.mul(panel, width)
                self._store(k, epilogue, numbers, place)

    def _sums(self, k: Builder, rows: list[Value], b: Value) -> Sums:
        """The sums of bytes, [row and digit][vector], while what follows is fetched."""
        size = self.vectors * k.isa.width // 8
        zero = microkernel.zeros(k, len(rows), self.vectors, i32)
        with k.loop(0, k.p.k, carry=microkernel.flat(zero)) as word:
            place = k.mul(word.i, size)
            for line in range(0, size, microkernel.LINE):
                k.prefetch(b, place, line + AHEAD)
            sums = microkernel.tile(word.v, self.vectors)
            addresses = [Address(row) for row in rows]
            terms = [Term(k.mul(word.i, BYTES), place)]
            sums = microkernel.accumulate(k, sums, addresses, b, terms, arithmetic=DOT)
            word.next = microkernel.flat(sums)
        return microkernel.tile(word.v, self.vectors)

    def _numbers(self, k: Builder, sums: Sums, info: Value, head: Value) -> list[Value]:
        """One row's results before the epilogue."""
        assert k.isa.dot is not None, k.isa.name
        lanes, width = k.isa.lanes(f32), self.vectors * k.isa.width // 8
        base, numbers = k.const(vec(f32, lanes), k.isa.dot.levels + 1), []
        for v in range(self.vectors):
            place = k.at(head, v * k.isa.width // 8)
            scale = k.fmul(k.load(vec(f32, lanes), place), k.broadcast(vec(f32, lanes), info))
            columns, exact = k.load(vec(i32, lanes), place, width), []
            for digit in range(DIGITS):
                zero = k.broadcast(vec(i32, lanes), info, BYTES * (digit + 1))
                part = k.op("sub", sums[digit][v], k.op("mul", zero, columns))
                exact.append(k.cast(part, f32))
            numbers.append(k.fmul(k.fma(exact[0], base, exact[1]), scale))
        return numbers

    def _store(
        self, k: Builder, epilogue: MatrixEpilogue, numbers: list[Value],
        place: tuple[int, Value, Size],
    ) -> None:  # fmt: skip
        (row, c_row, column), lanes = place, k.isa.lanes(f32)
        for v, value in enumerate(numbers):
            first = k.add(column, v * lanes)
            left = k.sub(k.p.n, first)
            with k.when(k.icmp("sge", left, lanes)):
                epilogue.store(value, c_row, row, first)
            partly = k.op("and", k.icmp("slt", left, lanes), k.icmp("sgt", left, 0))
            with k.when(partly):
                epilogue.store(value, c_row, row, first, k.tail_mask(left, lanes))
