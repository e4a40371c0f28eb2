"""The register tile that GEMM and convolution share: rows (pixels) of scalars x vectors of weights.

    sums = zeros(k, 6, 2)
    rows = [Address(pointer) for pointer in pixels]          # or strided_rows(k, base, stride, 6)
    sums = accumulate(k, sums, rows, weights, [Term(x=0, w=0), Term(x=4, w=64)])
    sums = reduction(k, sums, rows, 4, weights, 64, count)

Both return ``sums[row][vector]``; ``flat`` and ``tile`` turn them into the carried values of a loop
and back. A tile of weights is ``vectors`` registers that lie together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch_aio.codegen.builder import Builder, Size
from torch_aio.codegen.isa import Isa
from torch_aio.codegen.types import Type, Value, f32, i32, vec

Sums = list[list[Value]]
LINE = 64
"""Bytes of a cache line."""
LINES = 2
"""Cache lines fetched a pass: 1 is too few for 66 rows of A (-6 %), 4 too many for 198 (-5 %)."""
Load = Callable[[Builder, Value, Size, int], Value]
"""``load(k, weights, offset of the term, vector)``: one vector of a tile of weights, as f32."""


@dataclass(frozen=True)
class Address:
    """A pointer plus byte offsets that are added at each access, so that they fold into it."""

    pointer: Value
    offsets: tuple[Size, ...] = ()

    def moved(self, offset: Size) -> Address:
        """``offset`` bytes further."""
        return Address(self.pointer, (*self.offsets, offset))


@dataclass(frozen=True)
class Term:
    """One step of the reduction: byte offsets into every row and into the weights."""

    x: Size
    w: Size


def load_f32(k: Builder, weights: Value, offset: Size, vector: int) -> Value:
    """A vector of f32 weights."""
    return k.load(k.isa.vector(f32), weights, offset, vector * k.isa.width // 8)


def load_i32(k: Builder, weights: Value, offset: Size, vector: int) -> Value:
    """A vector of weights, four bytes a lane."""
    return k.load(k.isa.vector(i32), weights, offset, vector * k.isa.width // 8)


@dataclass(frozen=True)
class Arithmetic:
    """What a term adds to the sums: ``multiply(k, scalar in all lanes, weights, sums)``.

    ``element``: the type of scalars, weights and sums, 4 bytes in memory.
    """

    element: Type
    multiply: Callable[[Builder, Value, Value, Value], Value]
    load: Load


FMA = Arithmetic(f32, Builder.fma, load_f32)
DOT = Arithmetic(i32, Builder.dot, load_i32)
"""A term is four bytes of each row times four of each column."""


def terms_a_pass(isa: Isa) -> int:
    """How far to unroll: 4 reach 0.99 of the peak in L1 (Zen 5, 12x2 and AVX2 6x2), 8 no more.

    On NEON they are the lanes of one load.
    """
    return 4


def zeros(k: Builder, rows: int, vectors: int, element: Type = f32) -> Sums:
    """Sums to begin with."""
    return [[k.const(k.isa.vector(element), 0)] * vectors for _ in range(rows)]


def flat(sums: Sums) -> list[Value]:
    """The sums row by row."""
    return [value for row in sums for value in row]


def tile(values: Sequence[Value], vectors: int) -> Sums:
    """The inverse of ``flat``."""
    return [list(values[n : n + vectors]) for n in range(0, len(values), vectors)]


def strided_rows(k: Builder, base: Value, stride: Size, count: int) -> list[Address]:
    """Addresses of rows ``stride`` bytes apart, with a pointer for every three of them."""
    offsets = ((), (stride,), (k.add(stride, stride),))
    pointers = [k.at(base, k.mul(stride, first)) for first in range(0, count, 3)]
    return [Address(pointers[r // 3], offsets[r % 3]) for r in range(count)]


def accumulate(
    k: Builder,
    sums: Sums,
    rows: Sequence[Address],
    weights: Value,
    terms: Sequence[Term],
    load: Load | None = None,
    arithmetic: Arithmetic = FMA,
) -> Sums:
    """``sums[r][v] += x[r] * w[v]`` for every term, unrolled.

    The smaller operand set stays in registers, the other is read between the products: the other
    order spills (3x4 on AVX2, Zen 3: 97 against 78 GF/s).
    """
    sums, columns = tile(flat(sums), len(sums[0])), range(len(sums[0]))
    multiply, load = arithmetic.multiply, load or arithmetic.load
    for group in _groups(k.isa, terms):
        scalars = _scalars(k, rows, group, arithmetic.element)
        for n, term in enumerate(group):
            if len(rows) < len(columns):
                held = [scalar(n) for scalar in scalars]
                for v in columns:
                    weight = load(k, weights, term.w, v)
                    for r, value in enumerate(held):
                        sums[r][v] = multiply(k, value, weight, sums[r][v])
            else:
                vectors = [load(k, weights, term.w, v) for v in columns]
                for r, scalar in enumerate(scalars):
                    value = scalar(n)
                    pairs = zip(vectors, sums[r], strict=True)
                    sums[r] = [multiply(k, value, w, s) for w, s in pairs]
    return sums


def _groups(isa: Isa, terms: Sequence[Term]) -> Iterator[Sequence[Term]]:
    """Terms whose scalars are loaded together: neighbours where lanes multiply, else one a time."""
    position = 0
    while position < len(terms):
        size = isa.lanes(f32) if isa.has_lane_products else 1
        while not _are_neighbours(terms[position : position + size], size):
            size //= 2
        yield terms[position : position + size]
        position += size


def _are_neighbours(terms: Sequence[Term], count: int) -> bool:
    first = terms[0].x
    if count == 1:
        return True
    return isinstance(first, int) and [t.x for t in terms] == [first + 4 * n for n in range(count)]


def _scalars(
    k: Builder, rows: Sequence[Address], group: Sequence[Term], element: Type
) -> list[Callable[[int], Value]]:
    """For every row: the scalar of the group's term n in all lanes."""
    vector = k.isa.vector(element)

    def one(row: Address) -> Callable[[int], Value]:
        place = (*row.offsets, group[0].x)
        if len(group) == 1:
            return lambda n: k.broadcast(vector, row.pointer, *place)
        values = k.load(vec(element, len(group)), row.pointer, *place)
        return lambda n: k.shuffle(values, [n] * vector.lanes)

    return [one(row) for row in rows]


def reduction(
    k: Builder,
    sums: Sums,
    rows: Sequence[Address],
    x_step: Size,
    weights: Value,
    w_step: Size,
    count: Size,
    unroll: int = 0,
    load: Load | None = None,
    following: Value | None = None,
    arithmetic: Arithmetic = FMA,
) -> Sums:
    """Accumulate ``count`` terms, ``x_step`` bytes apart in every row, ``w_step`` in the weights.

    The pointers move with the loop; a second loop takes the terms that ``unroll`` leaves over.
    ``following``: memory to fetch into L2 meanwhile, ``LINES`` cache lines a pass.
    """
    unroll = unroll or terms_a_pass(k.isa)
    vectors = len(sums[0])
    pointers = list(dict.fromkeys(row.pointer for row in rows))
    place = [pointers.index(row.pointer) for row in rows]
    whole = k.mul(k.udiv(count, unroll), unroll)
    state = [weights, following or weights, *pointers, *flat(sums)]
    for first, last, step in ((0, whole, unroll), (whole, count, 1)):
        with k.loop(first, last, step, carry=state) as loop:
            weights, fetched, *rest = loop.v
            if following is not None and step == unroll:
                fetched = _fetch(k, fetched)
            pointers, sums = rest[: len(pointers)], tile(rest[len(pointers) :], vectors)
            moved = [Address(pointers[p], r.offsets) for p, r in zip(place, rows, strict=True)]
            terms = [Term(k.mul(x_step, n), k.mul(w_step, n)) for n in range(step)]
            sums = accumulate(k, sums, moved, weights, terms, load, arithmetic)
            ahead = [k.at(p, k.mul(x_step, step)) for p in pointers]
            loop.next = [k.at(weights, k.mul(w_step, step)), fetched, *ahead, *flat(sums)]
        state = loop.v
    return tile(state[2 + len(pointers) :], vectors)


def fetched_bytes(k: Builder, count: Size, unroll: int = 0) -> Size:
    """How far ``reduction`` over ``count`` terms gets in ``following``."""
    return k.mul(k.udiv(count, unroll or terms_a_pass(k.isa)), LINES * LINE)


def _fetch(k: Builder, memory: Value) -> Value:
    for line in range(LINES):
        k.prefetch(memory, line * LINE, locality=2)
    return k.at(memory, LINES * LINE)
