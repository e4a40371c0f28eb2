"""Few rows times a matrix that is read once, unpacked: y[m, n] = epilogue(x[m, k] @ w), m <= 4.

``Gemv`` reads w as [n][k] (the weight of a linear layer), ``GemvColumns`` as [k][n]. Both are bound
by memory: w of a linear layer is the user's own tensor, no packed copy exists.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.isa import Isa
from torch_aio.codegen.types import Value, f32
from torch_aio.codegen.vmath.convert import convert
from torch_aio.kernels import chain as chains
from torch_aio.kernels import microkernel
from torch_aio.kernels.chain import Chain
from torch_aio.kernels.matrix_epilogue import ACCUMULATOR, MatrixEpilogue, operand_params
from torch_aio.kernels.microkernel import Address
from torch_aio.kernels.spec import KernelSpec

BYTES = 4
MOST_ROWS = 4
CHUNK = 512
"""Terms that ``GemvColumns`` sums from zero before they are added late."""

AHEAD = 1024
"""Bytes fetched ahead in narrow rows of w; what it gains alone was not measured in one run."""


def together(isa: Isa, rows: int) -> int:
    """Rows of w that ``Gemv`` reads at once, their sums in registers.

    4 streams reach the memory's rate (Zen 3: 22 GB/s a core, 30 for two).
    """
    return 2 if rows > 2 and isa.registers < 32 else 4


def column_vectors(isa: Isa, rows: int) -> int:
    """Vectors of columns a unit of ``GemvColumns``: their sums fit the registers."""
    return 2 if rows > 2 and isa.registers < 32 else 4


@dataclass(frozen=True)
class _FewRows(KernelSpec):
    """``rows`` rows of x; for ``inner`` * outer matrices, ``_outer`` and ``_inner`` bytes apart.

    Rows lie ``_row`` bytes apart, elements of a row together.
    """

    rows: int
    chain: Chain = ACCUMULATOR
    stored: str = "f32"

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The kernel's parameters, the epilogue's operands last."""
        return Params(
            "x:ptr x_outer:int x_inner:int x_row:int w:ptr w_outer:int w_inner:int w_row:int "
            "y:ptr y_outer:int y_inner:int y_row:int n:int k:int inner:int "
            + operand_params(self.chain)
        )

    def _name(self, family: str) -> str:
        chain = f"_{self.chain.name}" if self.chain.name else ""
        stored = "" if self.stored == "f32" else f"_by_{self.stored}"
        return f"{family}_f32{stored}_{self.rows}{chain}"

    @contextmanager
    def _units(self, k: Builder, columns: int) -> Iterator[_Unit]:
        """The loop over units of ``columns`` columns of one matrix."""
        p = k.p
        parts = k.ceil_div(p.n, columns)
        with k.loop(k.begin, k.end) as unit:
            matrix, column = k.udiv(unit.i, parts), k.mul(k.urem(unit.i, parts), columns)
            outer, inner = k.udiv(matrix, p.inner), k.urem(matrix, p.inner)
            x, w, y = (
                k.at(getattr(p, n), k.mul(getattr(p, f"{n}_outer"), outer),
                     k.mul(getattr(p, f"{n}_inner"), inner))
                for n in ("x", "w", "y")
            )  # fmt: skip
            epilogue = MatrixEpilogue.at(k, self.chain, outer, inner)
            yield _Unit(x, w, y, column, epilogue)


@dataclass
class _Unit:
    x: Value
    w: Value
    y: Value
    column: Size
    epilogue: MatrixEpilogue

    def store(self, k: Builder, value: Value, row: Size, first: Size, mask: Value | None) -> None:
        """The epilogue of one vector of row ``row``, columns ``first``.."""
        y_row = k.at(self.y, k.mul(k.p.y_row, row))
        self.epilogue.store(value, y_row, row, first, mask)


@dataclass(frozen=True)
class Gemv(_FewRows):
    """y = epilogue(x @ w.T), w [n][k] of ``stored``, f32, f16 or bf16, widened as it is read.

    Units: batch * ceil(n / lanes).
    """

    @property
    def name(self) -> str:
        """``gemv_f32_1_add_1f3a9c``."""
        return self._name("gemv")

    def emit(self, k: Builder) -> None:
        """``lanes`` outputs a unit, some dot products at a time, gathered on the stack."""
        lanes = k.isa.lanes(f32)
        width = lanes * BYTES
        slots = k.alloca(self.rows * width)
        with self._units(k, lanes) as unit:
            last = k.sub(k.p.n, 1)
            x_rows = [k.at(unit.x, k.mul(k.p.x_row, row)) for row in range(self.rows)]
            streams = together(k.isa, self.rows)
            with k.loop(0, lanes, streams) as group:
                first = k.add(unit.column, group.i)
                lines = [k.min(k.add(first, r), last) for r in range(streams)]
                w = [k.at(unit.w, k.mul(line, k.p.w_row)) for line in lines]
                for row, values in enumerate(dot_products(k, x_rows, w, k.p.k, self.stored)):
                    for n, value in enumerate(values):
                        k.store(value, slots, k.mul(group.i, BYTES), row * width + n * BYTES)
            left = k.sub(k.p.n, unit.column)
            with k.when(k.icmp("sge", left, lanes)):
                self._finish(k, unit, slots, None)
            with k.when(k.icmp("slt", left, lanes)):
                self._finish(k, unit, slots, k.tail_mask(left, lanes))

    def _finish(self, k: Builder, unit: _Unit, slots: Value, mask: Value | None) -> None:
        vector = k.isa.vector(f32)
        with k.loop(0, self.rows) as row:
            value = k.load(vector, slots, k.mul(row.i, k.isa.width // 8))
            unit.store(k, value, row.i, unit.column, mask)


@dataclass(frozen=True)
class GemvColumns(_FewRows):
    """y = epilogue(x @ w), w [k][n]. Units: batch * ceil(n / (column_vectors * lanes))."""

    @property
    def name(self) -> str:
        """``gemv_columns_f32_1_add_1f3a9c``."""
        return self._name("gemv_columns")

    def emit(self, k: Builder) -> None:
        """Vectors of columns stay in registers while the rows of w stream by."""
        lanes, vectors = k.isa.lanes(f32), column_vectors(k.isa, self.rows)
        columns = vectors * lanes
        with self._units(k, columns) as unit:
            whole = k.icmp("sle", k.add(unit.column, columns), k.p.n)
            with k.when(whole):
                self._part(k, unit, unit.column, vectors, None)
            end = k.select(whole, k.size(unit.column), k.size(k.p.n))
            with k.loop(unit.column, end, lanes) as part:
                mask = k.tail_mask(k.sub(k.p.n, part.i), lanes)
                self._part(k, unit, part.i, 1, mask)

    def _part(
        self, k: Builder, unit: _Unit, column: Size, vectors: int, mask: Value | None
    ) -> None:
        p, lanes = k.p, k.isa.lanes(f32)
        w = k.at(unit.w, k.mul(column, BYTES))
        x = [k.at(unit.x, k.mul(p.x_row, row)) for row in range(self.rows)]
        for row, values in enumerate(streamed_sums(k, x, w, p.w_row, p.k, vectors, mask)):
            for vector, value in enumerate(values):
                unit.store(k, value, row, k.add(column, vector * lanes), mask)


def dot_products(
    k: Builder, x: Sequence[Value], w: Sequence[Value], terms: Size, stored: str = "f32"
) -> list[list[Value]]:
    """The dot products of every row of x with every row of w of ``stored``, [x row][w row]."""
    lanes, vector, size = k.isa.lanes(f32), k.isa.vector(f32), chains.itemsize(stored)

    def weight(line: Value, first: Size, at: int, mask: Value | None = None) -> Value:
        place = k.at(line, k.mul(first, size), at * size)
        return convert(k, chains.load(k, stored, lanes, place, mask=mask), vector)

    copies = 2 if len(x) == 1 else 1
    step = lanes * copies
    whole = k.mul(k.udiv(terms, step), step)
    sums = [k.const(vector, 0)] * (len(x) * len(w) * copies)
    with k.loop(0, whole, step, carry=sums) as loop:
        sums, offset = list(loop.v), k.mul(loop.i, BYTES)
        for copy in range(copies):
            at = copy * lanes * BYTES
            xs = [k.load(vector, row, offset, at) for row in x]
            for n, line in enumerate(w):
                terms_of = weight(line, loop.i, copy * lanes)
                if stored != "f32" and not copy:
                    k.prefetch(line, k.mul(loop.i, size), AHEAD)
                for m, value in enumerate(xs):
                    i = (m * len(w) + n) * copies + copy
                    sums[i] = k.fma(value, terms_of, sums[i])
        loop.next = sums
    with k.loop(whole, terms, lanes, carry=loop.v[::copies]) as tail:
        mask, offset = k.tail_mask(k.sub(terms, tail.i), lanes), k.mul(tail.i, BYTES)
        xs = [k.masked_load(vector, mask, row, offset) for row in x]
        weights = [weight(line, tail.i, 0, mask) for line in w]
        products = [(value, line) for value in xs for line in weights]
        tail.next = [k.fma(*pair, s) for pair, s in zip(products, tail.v, strict=True)]
    total = tail.v
    if copies == 2:
        total = [k.fadd(a, b) for a, b in zip(total, loop.v[1::2], strict=True)]
    return microkernel.tile([k.reduce_add(value) for value in total], len(w))


def streamed_sums(
    k: Builder, x: Sequence[Value], w: Value, w_row: Size, terms: Size, vectors: int,
    mask: Value | None,
) -> list[list[Value]]:  # fmt: skip
    """``x @ w`` for a few vectors of columns, [row][vector]; w [terms][columns] streams by.

    ``mask``: the columns that exist of the only vector.
    """

    def masked(k: Builder, weights: Value, offset: Size, vector: int) -> Value:
        assert mask is not None, vector
        return k.masked_load(k.isa.vector(f32), mask, weights, offset)

    load = microkernel.load_f32 if mask is None else masked
    zero = microkernel.zeros(k, len(x), vectors)
    with k.loop(0, terms, CHUNK, carry=microkernel.flat(zero)) as chunk:
        count = k.min(CHUNK, k.sub(terms, chunk.i))
        rows = [Address(k.at(row, k.mul(chunk.i, BYTES))) for row in x]
        start = k.at(w, k.mul(chunk.i, w_row))
        sums = microkernel.reduction(k, zero, rows, BYTES, start, w_row, count, load=load)
        late = zip(chunk.v, microkernel.flat(sums), strict=True)
        chunk.next = [k.fadd(a, b) for a, b in late]
    return microkernel.tile(chunk.v, vectors)
