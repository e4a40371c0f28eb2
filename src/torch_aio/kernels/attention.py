"""Attention: softmax(q k^T scale + mask) v for batches of heads, scores never leave the caches.

``Attention`` takes blocks of query rows; k and v come in panels (``PackPanels``: k transposed).
``attention_few.AttentionFew`` reads k and v as they lie. A row without any key gives zeros, as
eager's operator does, or NaN, as the spelled out form. A causal row sees keys up to its own number;
NaN in keys it does not see may stay unseen, as in eager's blocked kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.isa import Isa
from torch_aio.codegen.types import Value, f32, i8, i64, vec
from torch_aio.codegen.vmath.exponential import exp_magnitude
from torch_aio.ir.symbols import Int
from torch_aio.kernels.panel import Panel, panel_columns
from torch_aio.kernels.spec import KernelSpec

BYTES = 4
CHUNK = 256
"""Keys whose values are summed from zero before they are added late."""
SKEW = 64
"""Bytes between rows of scores beyond their size: rows of 4096 bytes would share L1 sets."""

MaskKind = Literal["", "float", "bool"]


def scratch_bytes(isa: Isa, tile: tuple[int, int], block_rows: Int, keys: Int, width: Int) -> Int:
    """Scratch a thread of ``Attention`` for ``keys`` keys and values of ``width`` numbers."""
    columns = panel_columns(isa, tile)
    padded = ((keys + columns - 1) // columns + (width + columns - 1) // columns) * columns
    return (block_rows + tile[0]) * (padded * BYTES + SKEW + BYTES)


@dataclass(frozen=True)
class Attention(KernelSpec):
    """o = softmax(q k^T scale + mask) v; q, o, mask: rows ``_row`` bytes apart, numbers adjacent.

    ``safe``, as eager's operator: a boolean mask adds ``fill``, rows of -inf give zeros. Else, as
    the spelled out form: it puts ``fill`` in the place of scores, and rows of -inf give NaN.
    Heads are ``_inner`` and batches ``_outer`` bytes apart; ``group`` query heads share a head of
    k and v, of which a batch has ``kv_heads``. k: dense panels [ceil(sk / W)][d][W] a head,
    v: [ceil(dv / W)][sk][W]. Units: batch * heads * ceil(sq / block_rows).
    """

    tile: tuple[int, int]
    mask: MaskKind = ""
    causal: bool = False
    safe: bool = True

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The kernel's parameters, the mask's last."""
        mask = " mask:ptr mask_outer:int mask_inner:int mask_row:int" if self.mask else ""
        mask += " fill:float" if self.mask == "bool" else ""
        return Params(
            "q:ptr q_outer:int q_inner:int q_row:int k:ptr v:ptr "
            "o:ptr o_outer:int o_inner:int o_row:int heads:int kv_heads:int group:int "
            "sq:int sk:int d:int dv:int scale:float block_rows:int work:scratch" + mask
        )

    @property
    def name(self) -> str:
        """``attention_f32_12x2_float_causal``."""
        words = [f"attention_f32_{self.tile[0]}x{self.tile[1]}", self.mask]
        return "_".join(w for w in (*words, "causal" * self.causal, "plain" * (not self.safe)) if w)

    def emit(self, k: Builder) -> None:
        """Scores of a block of rows, softmax by rows, context, rows scaled as they are stored."""
        p, width = k.p, panel_columns(k.isa, self.tile)
        blocks = k.ceil_div(p.sq, p.block_rows)
        with k.loop(k.begin, k.end) as unit:
            first = k.mul(k.urem(unit.i, blocks), p.block_rows)
            rows = k.min(p.block_rows, k.sub(p.sq, first))
            head = _Head.at(k, k.udiv(unit.i, blocks), first, self.mask)
            keys = k.min(p.sk, k.add(first, rows)) if self.causal else p.sk
            scores, score_row, context, context_row, inverse = self._work(k)
            panels = k.mul(head.kv, k.mul(k.ceil_div(p.sk, width), width * BYTES))
            with k.loop(0, keys, width) as column:
                panel = k.at(p.k, k.mul(panels, p.d), k.mul(k.mul(column.i, BYTES), p.d))
                out = k.at(scores, k.mul(column.i, BYTES))
                Panel(self.tile, head.q, p.q_row, panel, p.d).emit(k, rows, out, score_row)
            with k.loop(0, rows) as row:
                seen = keys
                if self.causal:
                    seen = k.min(p.sk, k.add(first, k.add(row.i, 1)))
                line, mask = k.at(scores, k.mul(row.i, score_row)), head.mask_row(k, row.i)
                scaled = Softmax(self.mask, self.safe).emit(k, line, (seen, keys), mask)
                k.store(scaled, inverse, k.mul(row.i, BYTES))
            self._context(k, head, (scores, score_row), (context, context_row), (rows, keys))
            with k.loop(0, rows) as row:
                factor = k.broadcast(k.isa.vector(f32), inverse, k.mul(row.i, BYTES))
                source = k.at(context, k.mul(row.i, context_row))
                _scaled_row(k, source, k.at(head.o, k.mul(row.i, p.o_row)), factor)

    def _work(self, k: Builder) -> tuple[Value, Size, Value, Size, Value]:
        """Scratch: scores, their row stride, the context, its row stride, a number a row."""
        p, width = k.p, panel_columns(k.isa, self.tile)
        rows = k.add(p.block_rows, self.tile[0])
        score_row = k.add(k.mul(k.ceil_div(p.sk, width), width * BYTES), SKEW)
        context_row = k.mul(k.ceil_div(p.dv, width), width * BYTES)
        context = k.at(p.work, k.mul(rows, score_row))
        inverse = k.at(context, k.mul(rows, context_row))
        return p.work, score_row, context, context_row, inverse

    def _context(
        self, k: Builder, head: _Head, scores: tuple[Value, Size], context: tuple[Value, Size],
        extent: tuple[Size, Size],
    ) -> None:  # fmt: skip
        p, width = k.p, panel_columns(k.isa, self.tile)
        rows, keys = extent
        panels = k.mul(head.kv, k.mul(k.ceil_div(p.dv, width), width * BYTES))
        with k.loop(0, p.dv, width) as column:
            panel = k.at(p.v, k.mul(panels, p.sk), k.mul(k.mul(column.i, BYTES), p.sk))
            out = k.at(context[0], k.mul(column.i, BYTES))
            with k.loop(0, k.max(keys, 1), CHUNK) as chunk:
                terms = k.min(CHUNK, k.sub(keys, chunk.i))
                a = k.at(scores[0], k.mul(chunk.i, BYTES))
                b = k.at(panel, k.mul(chunk.i, width * BYTES))
                late = k.icmp("ne", chunk.i, 0)
                product = Panel(self.tile, a, scores[1], b, terms)
                product.emit(k, rows, out, context[1], late)


@dataclass
class _Head:
    """One head of one batch: pointers at the unit's first row, and the number of its k and v."""

    q: Value
    o: Value
    kv: Size
    mask: Value | None

    @staticmethod
    def at(k: Builder, matrix: Size, first: Size, mask: MaskKind) -> _Head:
        p = k.p
        outer, inner = k.udiv(matrix, p.heads), k.urem(matrix, p.heads)

        def place(name: str) -> Value:
            outer_, inner_, row = (getattr(p, f"{name}_{s}") for s in ("outer", "inner", "row"))
            base: Value = getattr(p, name)
            return k.at(base, k.mul(outer, outer_), k.mul(inner, inner_), k.mul(first, row))

        kv = k.add(k.mul(outer, p.kv_heads), k.udiv(inner, p.group))
        return _Head(place("q"), place("o"), kv, place("mask") if mask else None)

    def mask_row(self, k: Builder, row: Size) -> Value | None:
        return k.at(self.mask, k.mul(row, k.p.mask_row)) if self.mask else None


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
            weight = exp_magnitude(k, k.fsub(k.load(vector, where), shift))
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


def _scaled_row(k: Builder, source: Value, target: Value, factor: Value) -> None:
    """``dv`` numbers times ``factor``."""
    lanes, width = factor.type.lanes, k.p.dv
    whole = k.mul(k.udiv(width, lanes), lanes)
    with k.loop(0, whole, lanes) as part:
        at = k.mul(part.i, BYTES)
        k.store(k.fmul(k.load(factor.type, source, at), factor), target, at)
    with k.when(k.icmp("ne", whole, width)):
        at, mask = k.mul(whole, BYTES), k.tail_mask(k.sub(width, whole), lanes)
        k.masked_store(k.fmul(k.load(factor.type, source, at), factor), mask, target, at)
