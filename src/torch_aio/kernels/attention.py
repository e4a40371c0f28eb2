"""Attention: softmax(q k^T scale + mask) v for batches of heads, scores never leave the caches.

``Attention`` takes blocks of query rows, ``attention_few.AttentionFew`` single ones; both read k
and v as they lie. A row without any key gives zeros, as eager's operator does, or NaN, as the
spelled out form. A causal row sees keys up to its own number; NaN in keys it does not see may stay
unseen, as in eager's blocked kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.types import Value, f32
from torch_aio.codegen.vmath.exponential import exp_weight
from torch_aio.kernels import microkernel
from torch_aio.kernels.attention_mask import NO_MASK, Masking
from torch_aio.kernels.attention_work import STATISTICS, Head, Tile, Work
from torch_aio.kernels.microkernel import Address, Sums
from torch_aio.kernels.pack_gemm import emit_panel
from torch_aio.kernels.panel import panel_columns, smallest_tile
from torch_aio.kernels.spec import KernelSpec

BYTES = 4
STREAMS = 4
"""Sums of weights at once: shorter chains of additions round less."""


@dataclass(frozen=True)
class Attention(KernelSpec):
    """o = softmax(q k^T scale + mask) v; rows ``_row`` bytes apart, numbers of a row adjacent.

    Heads are ``_inner`` and batches ``_outer`` bytes apart; ``group`` query heads share a head of
    k and v. A unit takes ``block_rows`` queries, at most the columns of ``tile``, and
    ``block_keys`` keys at a time: scores are [keys][queries], so that queries are lanes, k is read
    by broadcasts, and the softmax needs no reductions. Weights of a block are relative to the
    largest score so far; what was summed before is scaled when the next block's sums are added.

    ``safe``, as eager's operator: a boolean mask adds ``fill``, rows of -inf give zeros. Else, as
    the spelled out form: it puts ``fill`` in the place of scores, and rows of -inf give NaN.

    ``tile``: of the scores, keys x vectors of queries; ``context``: queries x vectors of values,
    ``ragged`` if values do not fill these. Units: batch * heads * ceil(sq / block_rows).
    """

    tile: Tile
    context: Tile
    ragged: bool = False
    masking: Masking = NO_MASK
    causal: bool = False
    safe: bool = True

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The kernel's parameters, the mask's last."""
        strides = " ".join(f"{n}:ptr {n}_outer:int {n}_inner:int {n}_row:int" for n in "qkvo")
        return Params(
            f"{strides} heads:int group:int sq:int sk:int d:int dv:int scale:float "
            "block_rows:int block_keys:int work:scratch" + self.masking.params
        )

    @property
    def name(self) -> str:
        """``attention_f32_6x4_12x2_float_causal``."""
        tiles = "_".join(f"{rows}x{vectors}" for rows, vectors in (self.tile, self.context))
        words = ("ragged" * self.ragged, self.masking.name, "causal" * self.causal,
                 "plain" * (not self.safe))  # fmt: skip
        return "_".join(word for word in ("attention_f32", tiles, *words) if word)

    def emit(self, k: Builder) -> None:
        """Scores of a block of keys, their weights, the context."""
        p, lanes = k.p, k.isa.lanes(f32)
        blocks = k.ceil_div(p.sq, p.block_rows)
        with k.loop(k.begin, k.end) as unit:
            first = k.mul(k.urem(unit.i, blocks), p.block_rows)
            rows = k.min(p.block_rows, k.sub(p.sq, first))
            head = Head.at(k, self.masking, k.udiv(unit.i, blocks), first)
            work, vectors = (
                Work.at(k, self.tile, self.context, self.masking),
                k.ceil_div(rows, lanes),
            )
            self._begin(k, head, work, rows)
            end = k.min(p.sk, k.add(first, rows)) if self.causal else p.sk
            with k.loop(0, k.max(end, 1), p.block_keys) as block:
                keys = k.min(p.block_keys, k.sub(end, block.i))
                mask = self.masking.block(k, head.mask, work.mask, (block.i, rows, keys))
                self._scores(k, head, work, (block.i, keys, vectors), mask)
                self._weights(k, work, vectors, keys)
                last = k.icmp("sge", k.add(block.i, keys), end)
                self._inverse(k, work, last)
                v = k.at(head.v, k.mul(block.i, p.v_row))
                out = k.select(last, head.o, work.context)
                out_row = k.select(last, k.size(p.o_row), k.size(work.context_row))
                late = k.icmp("ne", block.i, 0)
                self._context(k, v, work, (rows, keys), (out, out_row), late)

    def _begin(self, k: Builder, head: Head, work: Work, rows: Size) -> None:
        """Queries times ``scale`` as a panel [d][columns], statistics of no keys."""
        p, width, vectors = k.p, k.isa.width // 8, self.tile[1]
        place = (0, rows, p.d)
        emit_panel(k, head.q, p.q_row, work.queries, place, vectors, transposed=True, scale=p.scale)
        for name, value in (("top", float("-inf")), ("old", float("-inf")), ("total", 0)):
            for n in range(vectors):
                k.store(k.const(k.isa.vector(f32), value), work.statistics[name], n * width)

    def _scores(
        self, k: Builder, head: Head, work: Work, place: tuple[Size, Size, Size],
        mask: Value | None,
    ) -> None:  # fmt: skip
        """Tiles of keys x queries, narrower and higher ones where few queries are left."""
        first, keys, vectors = place
        below, widest = 0, self.tile[1]
        for width in (n for n in (1, 2, 3, 4) if n == widest or (n < 3 and n < widest)):
            fits = k.op("and", k.icmp("sgt", vectors, below), k.icmp("sle", vectors, width))
            rows, below = self.tile[0] * min(widest // width, 2), width
            with k.when(fits), k.loop(0, keys, rows) as tile:
                self._score_tile(k, head, work, (first, tile.i, keys), (rows, width), mask)

    def _score_tile(
        self, k: Builder, head: Head, work: Work, place: tuple[Size, Size, Size], tile: Tile,
        mask: Value | None,
    ) -> None:  # fmt: skip
        """Keys past the last repeat that one: the scratch has room for a tile more."""
        p, (block, first, keys), (rows, vectors) = k.p, place, tile
        width = k.isa.width // 8
        lines = [k.min(k.add(first, r), k.sub(keys, 1)) for r in range(rows)]
        places = [k.mul(k.add(block, line), p.k_row) for line in lines]
        addresses = [Address(k.at(head.k, where)) for where in places]
        sums = microkernel.reduction(
            k, microkernel.zeros(k, rows, vectors), addresses, BYTES, work.queries, work.row, p.d
        )
        tops = [
            k.load(k.isa.vector(f32), work.statistics["top"], v * width) for v in range(vectors)
        ]
        for r, line in enumerate(lines):
            scores = self.masking.apply(k, sums[r], mask, line, added=self.safe)
            if self.causal:
                scores = _causal(k, scores, k.sub(k.add(block, line), head.first))
            slot = k.at(work.scores, k.mul(k.add(first, r), work.row))
            for v, score in enumerate(scores):
                k.store(score, slot, v * width)
                tops[v] = k.select(k.fcmp("ogt", score, tops[v]), score, tops[v])
        for v, top in enumerate(tops):
            k.store(top, work.statistics["top"], v * width)

    def _weights(self, k: Builder, work: Work, vectors: Size, keys: Size) -> None:
        """Scores to weights, in place; the factor for what was summed before."""
        vector, width = k.isa.vector(f32), k.isa.width // 8
        lowest = k.const(vector, float("-inf"))
        with k.loop(0, vectors) as column:
            offset = k.mul(column.i, width)
            at = {name: k.at(work.statistics[name], offset) for name in STATISTICS}
            top, old, total = (k.load(vector, at[n]) for n in ("top", "old", "total"))
            shift = k.select(k.fcmp("oeq", top, lowest), k.const(vector, 0), top)
            scores = k.at(work.scores, offset)
            summed = self._sum_of_weights(k, scores, work.row, shift, keys)
            factor = exp_weight(k, k.fsub(old, shift))
            k.store(factor, at["factor"])
            k.store(k.fma(total, factor, summed), at["total"])
            k.store(top, at["old"])

    def _sum_of_weights(
        self, k: Builder, scores: Value, row: int, shift: Value, keys: Size
    ) -> Value:
        """Scores of one vector of queries to weights."""
        state, whole = [k.const(shift.type, 0)] * STREAMS, k.mul(k.udiv(keys, STREAMS), STREAMS)
        for first, last, step in ((0, whole, STREAMS), (whole, keys, 1)):
            with k.loop(first, last, step, carry=state) as key:
                sums = list(key.v)
                for n in range(step):
                    where = k.at(scores, k.mul(key.i, row), n * row)
                    weight = exp_weight(k, k.fsub(k.load(shift.type, where), shift))
                    k.store(weight, where)
                    sums[n] = k.fadd(sums[n], weight)
                key.next = sums
            state = key.v
        while len(state) > 1:
            state = [k.fadd(a, b) for a, b in zip(state[::2], state[1::2], strict=True)]
        return state[0]

    def _inverse(self, k: Builder, work: Work, last: Value) -> None:
        """What the sums are multiplied by: 1, behind the last block 1 / the sum of weights."""
        vector, width = k.isa.vector(f32), k.isa.width // 8
        one = k.const(vector, 1)
        for n in range(self.tile[1]):
            total = k.load(vector, work.statistics["total"], n * width)
            inverse = k.fdiv(one, total)
            if self.safe:
                none = k.fcmp("oeq", total, k.const(vector, 0))
                inverse = k.select(none, k.const(vector, 0), inverse)
            k.store(k.select(last, inverse, one), work.statistics["inverse"], n * width)

    def _context(
        self, k: Builder, v: Value, work: Work, extent: tuple[Size, Size],
        target: tuple[Value, Size], late: Value,
    ) -> None:  # fmt: skip
        """Weights times values; where ``late`` holds, plus the sums before, scaled."""
        rows, keys = extent
        columns, lanes = panel_columns(k.isa, self.context), k.isa.lanes(f32)
        with k.loop(0, k.p.dv, columns) as panel:
            offset, load, masks = k.mul(panel.i, BYTES), microkernel.load_f32, None
            if self.ragged:
                left = [k.sub(k.p.dv, k.add(panel.i, n * lanes)) for n in range(self.context[1])]
                masks = [k.tail_mask(count, lanes) for count in left]
                load = partial(_masked, masks)
            place = _Place(k.at(target[0], offset), target[1], rows, masks)

            with k.loop(0, rows, self.context[0]) as tile:

                def sums(count: int) -> None:
                    start = k.at(work.scores, k.mul(tile.i, BYTES))
                    found = microkernel.reduction(
                        k, microkernel.zeros(k, count, self.context[1]),
                        [Address(start, (r * BYTES,)) for r in range(count)], work.row,
                        k.at(v, offset), k.p.v_row, keys, load=load,
                    )  # fmt: skip
                    before = k.at(work.context, offset)
                    found = self._add_late(k, work, before, (tile.i, found), late)
                    place.store(k, work, tile.i, found)

                smallest_tile(k, k.sub(rows, tile.i), self.context[0], sums)

    def _add_late(
        self, k: Builder, work: Work, before: Value, tile: tuple[Size, Sums], late: Value
    ) -> Sums:
        first, sums = tile
        width = k.isa.width // 8
        with k.when(late, carry=microkernel.flat(sums)) as again:
            again.next = []
            for r, row in enumerate(sums):
                number = k.add(first, r)
                slot = k.at(before, k.mul(number, work.context_row))
                factor = work.number(k, "factor", number)
                for n, value in enumerate(row):
                    sum_ = k.load(value.type, slot, n * width)
                    again.next.append(k.fma(sum_, factor, value))
        return microkernel.tile(again.v, self.context[1])


@dataclass
class _Place:
    """Where rows of a context go, some columns of them: ``rows`` of them exist."""

    base: Value
    row: Size
    rows: Size
    masks: list[Value] | None

    def store(self, k: Builder, work: Work, first: Size, sums: Sums) -> None:
        """The rows from ``first`` that exist, times their inverse sums of weights."""
        width = k.isa.width // 8
        for r, values in enumerate(sums):
            number = k.add(first, r)
            with k.when(k.icmp("slt", number, self.rows)):
                inverse = work.number(k, "inverse", number)
                target = k.at(self.base, k.mul(number, self.row))
                for n, value in enumerate(values):
                    result = k.fmul(value, inverse)
                    if self.masks is None:
                        k.store(result, target, n * width)
                    else:
                        k.masked_store(result, self.masks[n], target, n * width)


def _causal(k: Builder, scores: list[Value], seen: Size) -> list[Value]:
    """Queries before number ``seen`` (of the unit) do not see the key."""
    lanes = k.isa.lanes(f32)
    masked = []
    for n, score in enumerate(scores):
        hidden = k.tail_mask(k.sub(seen, n * lanes), lanes)
        masked.append(k.select(hidden, k.const(score.type, float("-inf")), score))
    return masked


def _masked(masks: list[Value], k: Builder, values: Value, offset: Size, vector: int) -> Value:
    """A ``microkernel.Load`` of the columns that exist."""
    place = vector * k.isa.width // 8
    return k.masked_load(k.isa.vector(f32), masks[vector], values, offset, place)
