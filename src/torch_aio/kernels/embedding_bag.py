"""Sums, means and maxima of rows of a table, picked by bags of indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.types import Value, f32, i64, vec
from torch_aio.kernels.chain import TYPES
from torch_aio.kernels.gather import OUT_OF_RANGE, checked
from torch_aio.kernels.spec import KernelSpec

VECTORS = 4
"""Vectors of a row that are summed together: the indices are read once for all of them."""


@dataclass(frozen=True)
class EmbeddingBagSpec(KernelSpec):
    """y[b] = ``mode`` of table[indices[j]] (times weights[j]) for j in bag b; 0 for an empty bag.

    Bag b reaches from ``offsets[b]`` to ``offsets[b + 1]``, the last one to ``count``, where
    ``given`` offsets end before. Rows ``padding`` take no part. f32; ``mode``: sum, mean or max.
    Parameters: ``table`` with ``rows`` rows of ``width`` elements ``table_row`` bytes apart;
    ``indices`` and ``offsets`` of type ``index``; ``weights`` (f32) where ``weighted``; ``y``,
    row-major; ``error``: an index or offset that is outside is eager's error. Units: bags.
    """

    mode: str
    index: str = "i64"
    weighted: bool = False

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The parameters, with the weights where there are some."""
        words = "table:ptr table_row:int rows:int width:int padding:int indices:ptr count:int "
        words += "offsets:ptr given:int y:ptr error:ptr"
        return Params(words + " weights:ptr" * self.weighted)

    @property
    def name(self) -> str:
        """``embedding_bag_sum_i64``."""
        return f"embedding_bag_{self.mode}_{self.index}{'_weighted' * self.weighted}"

    def emit(self, k: Builder) -> None:
        """Bag by bag: whole tiles of columns, then a masked vector at a time."""
        lanes = k.isa.lanes(f32)
        tile = VECTORS * lanes
        whole = k.mul(k.udiv(k.p.width, tile), tile)
        with k.loop(k.begin, k.end) as unit:
            start, stop = self._bounds(k, unit.i)
            y = k.at(k.p.y, k.mul(unit.i, k.mul(k.p.width, 4)))
            with k.loop(0, whole, tile) as l:
                columns = [k.add(l.i, n * lanes) for n in range(VECTORS)]
                self._columns(k, start, stop, y, columns, None)
            with k.loop(whole, k.p.width, lanes) as l:
                mask = k.tail_mask(k.sub(k.p.width, l.i), lanes)
                self._columns(k, start, stop, y, [l.i], mask)

    def _bounds(self, k: Builder, bag: Value) -> tuple[Size, Size]:
        """Where a bag begins and ends among the indices; an error where that is outside."""
        p, following = k.p, k.size(k.add(bag, 1))
        start = self._integer(k, p.offsets, bag)
        has_next = k.icmp("slt", following, p.given)
        stop = self._integer(k, p.offsets, k.select(has_next, following, bag))
        stop = k.select(has_next, stop, p.count)
        outside = k.op("or", k.icmp("ugt", start, p.count), k.icmp("ugt", stop, p.count))
        is_late = k.op("and", k.icmp("eq", bag, 0), k.icmp("ne", start, 0))
        with k.when(k.op("or", outside, is_late)):
            k.store(k.const(i64, OUT_OF_RANGE), p.error)
        return k.max(start, 0), k.min(stop, p.count)

    def _integer(self, k: Builder, base: Value, place: Size) -> Value:
        type_ = TYPES[self.index]
        return k.cast(k.load(type_, base, k.mul(place, type_.bytes)), i64)

    def _columns(
        self, k: Builder, start: Size, stop: Size, y: Value, columns: Sequence[Size],
        mask: Value | None,
    ) -> None:  # fmt: skip
        """These vectors of columns of one bag."""
        p = k.p
        type_ = vec(f32, k.isa.lanes(f32))
        zeros = [k.const(type_, 0) for _ in columns]
        with k.loop(start, stop, carry=[k.const(i64, 0), *zeros]) as l:
            raw = self._integer(k, p.indices, l.i)
            index, valid = checked(k, raw, p.rows, p.error, wraps=False)
            taken = k.op("and", valid, k.icmp("ne", index, p.padding))
            row = k.at(p.table, k.mul(index, p.table_row))
            with k.when(taken, carry=l.v) as then:
                seen, *sums = l.v
                weight = k.load(f32, p.weights, k.mul(l.i, 4)) if self.weighted else None
                loaded = [self._load(k, row, column, mask) for column in columns]
                then.next = [
                    k.op("add", seen, k.const(i64, 1)),
                    *(self._join(k, seen, a, b, weight) for a, b in zip(sums, loaded, strict=True)),
                ]
            l.next = then.v
        seen, *sums = l.v
        for column, value in zip(columns, sums, strict=True):
            result = self._mean(k, value, seen) if self.mode == "mean" else value
            at = k.mul(column, 4)
            k.masked_store(result, mask, y, at) if mask else k.store(result, y, at)

    def _load(self, k: Builder, row: Value, column: Size, mask: Value | None) -> Value:
        type_, at = vec(f32, k.isa.lanes(f32)), k.mul(column, 4)
        return k.masked_load(type_, mask, row, at) if mask else k.load(type_, row, at)

    def _join(self, k: Builder, seen: Value, a: Value, b: Value, weight: Value | None) -> Value:
        if self.mode == "max":
            is_first = k.splat(k.icmp("eq", seen, 0), k.isa.lanes(f32))
            return k.select(k.op("or", is_first, k.fcmp("ogt", b, a)), b, a)
        return k.fma(b, k.splat(weight, k.isa.lanes(f32)), a) if weight else k.fadd(a, b)

    def _mean(self, k: Builder, value: Value, seen: Value) -> Value:
        count = k.cast(k.size(k.max(seen, 1)), f32)
        return k.fdiv(value, k.splat(count, k.isa.lanes(f32)))
