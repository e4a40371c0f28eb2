"""Attention of few query rows (decoding): k and v are read once, as they lie."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.isa import Isa
from torch_aio.codegen.types import Value, f32, i8, i64, vec
from torch_aio.codegen.vmath.exponential import exp_weight
from torch_aio.ir.symbols import Int
from torch_aio.kernels.attention_mask import MaskKind
from torch_aio.kernels.gemv import column_vectors, dot_products, streamed_sums, together
from torch_aio.kernels.spec import KernelSpec

BYTES = 4
MOST_ROWS = 4
"""Rows a unit."""
MOST_TOGETHER = 4


def scratch_bytes(isa: Isa, rows: int, keys: Int) -> Int:
    """Scratch a thread of ``AttentionFew``."""
    return (keys + isa.lanes(f32) + MOST_TOGETHER) * (rows * BYTES)


@dataclass(frozen=True)
class AttentionFew(KernelSpec):
    """o = softmax(q k^T scale + mask) v for ``count`` rows a head, ``rows`` of them a unit.

    All rows see all keys. Heads are ``_inner`` and batches ``_outer`` bytes apart, rows ``_row``,
    numbers adjacent; query heads that share k and v are rows of one head.
    ``mask`` and ``safe``: as in ``Attention``. Units: batch * heads * ceil(count / rows).
    """

    rows: int
    mask: MaskKind = ""
    safe: bool = True

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The kernel's parameters, the mask's last."""
        operands = ["q", "k", "v", "o", *(["mask"] if self.mask else [])]
        strides = (f"{n}:ptr {n}_outer:int {n}_inner:int {n}_row:int" for n in operands)
        fill = " fill:float" if self.mask == "bool" else ""
        return Params(
            "heads:int count:int sk:int d:int dv:int scale:float work:scratch "
            + " ".join(strides) + fill
        )  # fmt: skip

    @property
    def name(self) -> str:
        """``attention_few_f32_4_bool``."""
        words = (f"attention_few_f32_{self.rows}", self.mask, "plain" * (not self.safe))
        return "_".join(word for word in words if word)

    def emit(self, k: Builder) -> None:
        """Scores of some keys at a time, softmax by rows, the context with v streaming by."""
        p = k.p
        blocks = k.ceil_div(p.count, self.rows)
        totals = k.alloca(self.rows * BYTES)
        score_row = k.mul(k.add(p.sk, k.isa.lanes(f32) + MOST_TOGETHER), BYTES)
        with k.loop(k.begin, k.end) as unit:
            matrix, first = k.udiv(unit.i, blocks), k.mul(k.urem(unit.i, blocks), self.rows)
            head = k.udiv(matrix, p.heads), k.urem(matrix, p.heads)
            last = k.sub(p.count, 1)
            lines = [k.min(k.add(first, r), last) for r in range(self.rows)]
            q = [self._at(k, "q", head, line) for line in lines]
            scores = [k.at(p.work, k.mul(score_row, r)) for r in range(self.rows)]
            self._scores(k, q, self._at(k, "k", head, 0), scores)
            with k.loop(0, self.rows) as row:
                line = k.min(k.add(first, row.i), last)
                mask = self._at(k, "mask", head, line) if self.mask else None
                weights = k.at(p.work, k.mul(score_row, row.i))
                total = Softmax(self.mask, self.safe).emit(k, weights, (p.sk, p.sk), mask)
                k.store(total, totals, k.mul(row.i, BYTES))
            inverse = [k.load(f32, totals, r * BYTES) for r in range(self.rows)]
            outputs = [self._at(k, "o", head, line) for line in lines]
            self._context(k, scores, self._at(k, "v", head, 0), inverse, outputs)

    def _at(self, k: Builder, name: str, head: tuple[Size, Size], row: Size) -> Value:
        strides = (getattr(k.p, f"{name}_{part}") for part in ("outer", "inner", "row"))
        offsets = (k.mul(s, i) for s, i in zip(strides, (*head, row), strict=True))
        return k.at(getattr(k.p, name), *offsets)

    def _scores(self, k: Builder, q: list[Value], keys: Value, scores: list[Value]) -> None:
        last, streams = k.sub(k.p.sk, 1), together(k.isa, self.rows)
        with k.loop(0, k.p.sk, streams) as key:
            lines = [k.min(k.add(key.i, n), last) for n in range(streams)]
            rows = [k.at(keys, k.mul(line, k.p.k_row)) for line in lines]
            dots = dot_products(k, q, rows, k.p.d)
            for row, values in zip(scores, dots, strict=True):
                for n, value in enumerate(values):
                    k.store(value, row, k.mul(key.i, BYTES), n * BYTES)

    def _context(
        self, k: Builder, scores: list[Value], v: Value, inverse: list[Value], out: list[Value]
    ) -> None:
        lanes, width = k.isa.lanes(f32), k.p.dv
        vectors = column_vectors(k.isa, self.rows)
        columns = vectors * lanes
        factors = [k.splat(value, lanes) for value in inverse]
        whole = k.mul(k.udiv(width, columns), columns)

        def part(column: Size, vectors: int, mask: Value | None) -> None:
            start = k.at(v, k.mul(column, BYTES))
            sums = streamed_sums(k, scores, start, k.p.v_row, k.p.sk, vectors, mask)
            for row, factor, target in zip(sums, factors, out, strict=True):
                for n, value in enumerate(row):
                    result, where = k.fmul(value, factor), k.at(target, k.mul(column, BYTES))
                    if mask is None:
                        k.store(result, where, n * lanes * BYTES)
                    else:
                        k.masked_store(result, mask, where)

        with k.loop(0, whole, columns) as block:
            part(block.i, vectors, None)
        with k.loop(whole, width, lanes) as rest:
            part(rest.i, 1, k.tail_mask(k.sub(width, rest.i), lanes))


@dataclass(frozen=True)
class Softmax:
    """A row of scores to weights, in place: exp(scale s + mask - max)."""

    mask: MaskKind
    safe: bool

    def emit(self, k: Builder, row: Value, extent: tuple[Size, Size], mask: Value | None) -> Value:
        """Returns 1 / the sum of the weights (0 where there are none).

        ``extent``: the scores of the row, and how far zeros follow them (at least a whole vector).
        """
        seen, end = extent
        lanes, vector = k.isa.lanes(f32), k.isa.vector(f32)
        whole, zero = k.mul(k.udiv(seen, lanes), lanes), k.const(vector, 0)
        shift = k.splat(self._maximum(k, row, seen, mask), lanes)
        with k.loop(0, seen, lanes, carry=[zero]) as loop:
            where = k.at(row, k.mul(loop.i, BYTES))
            weight = exp_weight(k, k.fsub(k.load(vector, where), shift))
            k.store(weight, where)
            loop.next = [k.fadd(loop.v[0], weight)]
        ragged = k.icmp("ne", whole, k.size(seen))
        after = k.add(whole, k.mul(k.cast(ragged, i64), lanes))
        with k.loop(after, end, lanes) as rest:
            k.store(zero, row, k.mul(rest.i, BYTES))
        total = k.reduce_add(loop.v[0])
        none = k.fcmp("oeq", total, k.const(f32, 0))
        return k.select(none, k.const(f32, 0), k.fdiv(k.const(f32, 1), total))

    def _maximum(self, k: Builder, row: Value, seen: Size, mask: Value | None) -> Value:
        """Scale and mask the scores in place; what to subtract from them."""
        lanes, vector = k.isa.lanes(f32), k.isa.vector(f32)
        whole, factor = k.mul(k.udiv(seen, lanes), lanes), k.splat(k.p.scale, lanes)

        def larger(index: Size, live: Value | None, top: Value) -> Value:
            where = k.at(row, k.mul(index, BYTES))
            score = self._masked(k, k.fmul(k.load(vector, where), factor), mask, index, live)
            k.store(score, where)
            return k.select(k.fcmp("ogt", score, top), score, top)

        with k.loop(0, whole, lanes, carry=[k.const(vector, float("-inf"))]) as loop:
            loop.next = [larger(loop.i, None, loop.v[0])]
        with k.when(k.icmp("ne", whole, k.size(seen)), carry=loop.v) as tail:
            live = k.tail_mask(k.sub(seen, whole), lanes)
            tail.next = [larger(whole, live, tail.v[0])]
        top = k.call_exact(f"llvm.vector.reduce.fmax.{vector.mangled}", f32, [tail.v[0]])
        nothing = k.fcmp("oeq", top, k.const(f32, float("-inf")))
        return k.select(nothing, k.const(f32, 0), top) if self.safe else top

    def _masked(
        self, k: Builder, score: Value, mask: Value | None, index: Size, live: Value | None
    ) -> Value:
        """A vector of scores with the mask applied; lanes that are not ``live`` become -inf."""
        if mask is not None:
            type_ = score.type if self.mask == "float" else vec(i8, score.type.lanes)
            where = k.at(mask, k.mul(index, type_.bytes))
            value = k.load(type_, where) if live is None else k.masked_load(type_, live, where)
            if self.mask == "float":
                score = k.fadd(score, value)
            else:
                fill = k.splat(k.p.fill, score.type.lanes)
                hidden = k.fadd(score, fill) if self.safe else fill  # NaN stays one in eager
                score = k.select(k.icmp("ne", value, 0), score, hidden)
        lowest = k.const(score.type, float("-inf"))
        return score if live is None else k.select(live, score, lowest)
