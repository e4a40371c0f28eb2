"""Where the attention kernel finds a head's operands, and what it keeps in scratch memory."""

from __future__ import annotations

from dataclasses import dataclass

from torch_aio.codegen.builder import Builder, Size
from torch_aio.codegen.isa import Isa
from torch_aio.codegen.types import Value, f32
from torch_aio.ir.symbols import Int, ceil_div
from torch_aio.kernels.attention_mask import Masking
from torch_aio.kernels.panel import panel_columns

BYTES = 4
STATISTICS = ("top", "old", "total", "factor", "inverse")
"""Of each query: the largest score so far, that of the blocks before, the sum of weights, the
factor for what was summed before, and that for what is summed now."""

Tile = tuple[int, int]


@dataclass
class Head:
    """One head of one batch: q, o and mask at the unit's first row, which is row ``first``."""

    q: Value
    k: Value
    v: Value
    o: Value
    mask: Value | None
    first: Size

    @staticmethod
    def at(k: Builder, masking: Masking, matrix: Size, first: Size) -> Head:
        """Of head ``matrix`` of all batches, by the kernel's parameters."""
        p = k.p
        outer, inner = k.udiv(matrix, p.heads), k.urem(matrix, p.heads)

        def place(name: str, inner: Size, row: Size) -> Value:
            steps = (getattr(p, f"{name}_{part}") for part in ("outer", "inner", "row"))
            offsets = (k.mul(i, s) for i, s in zip((outer, inner, row), steps, strict=True))
            return k.at(getattr(p, name), *offsets)

        shared = k.udiv(inner, p.group)
        mask = place("mask", inner, first) if masking.kind else None
        q, o = place("q", inner, first), place("o", inner, first)
        return Head(q, place("k", shared, 0), place("v", shared, 0), o, mask, first)


@dataclass
class Work:
    """Scratch of a thread.

    ``scores`` and ``mask`` have rows of ``row`` bytes, one a key; ``queries`` one a number of the
    head; ``context`` rows of ``context_row`` bytes, one a query.
    """

    row: int
    context_row: Size
    statistics: dict[str, Value]
    scores: Value
    mask: Value
    queries: Value
    context: Value

    @staticmethod
    def at(k: Builder, tile: Tile, context: Tile, masking: Masking) -> Work:
        """By the kernel's parameters."""
        row, columns = panel_columns(k.isa, tile) * BYTES, panel_columns(k.isa, context)
        slot = _slot(k.isa, tile, context)
        names = enumerate(STATISTICS)
        statistics = {name: k.at(k.p.work, n * slot) for n, name in names}
        scores = k.at(k.p.work, len(STATISTICS) * slot)
        size = k.mul(k.add(k.p.block_keys, _spare_keys(tile)), row)
        mask = k.at(scores, size)
        queries = k.at(mask, size) if masking.is_full else mask
        sums, context_row = k.at(queries, k.mul(k.p.d, row)), k.ceil_div(k.p.dv, columns)
        context_row = k.mul(context_row, columns * BYTES)
        return Work(row, context_row, statistics, scores, mask, queries, sums)

    def number(self, k: Builder, name: str, query: Size) -> Value:
        """A statistic of one query in all lanes."""
        return k.broadcast(k.isa.vector(f32), self.statistics[name], k.mul(query, BYTES))


def scratch_bytes(
    isa: Isa, tile: Tile, context: Tile, masking: Masking, block_keys: Int, width: Int, values: Int
) -> Int:
    """Scratch a thread for heads of ``width`` numbers and values of ``values``."""
    row, columns = panel_columns(isa, tile) * BYTES, panel_columns(isa, context)
    scores = (block_keys + _spare_keys(tile)) * row * (2 if masking.is_full else 1)
    sums = ceil_div(values, columns) * columns * BYTES * (panel_columns(isa, tile) + context[0])
    return len(STATISTICS) * _slot(isa, tile, context) + scores + width * row + sums


def _slot(isa: Isa, tile: Tile, context: Tile) -> int:
    """Bytes of one number a query, with a register tile of queries to spare."""
    return -(-(panel_columns(isa, tile) + context[0]) * BYTES // 64) * 64


def _spare_keys(tile: Tile) -> int:
    """Keys past the last one that the tiles of scores write, and those of the context read."""
    return 2 * tile[0]
