"""Products of matrices in blocks: what is multiplied, rows a unit, terms a chunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.fx import Node

from torch_aio.ir.symbols import Int, ceil_div, maximum
from torch_aio.kernels.chain import Chain
from torch_aio.plan.matrix_space import MatrixSpace
from torch_aio.plan.value import Argument, Value

CHUNK = 256
"""Terms summed before they are added late: a panel's chunk is 16 to 64 KB, in or near L1."""
MOST_ROWS = 264
"""Rows a unit: 197 x 768 x 3072 in blocks of 66, 102, 198: 471, 482, 492 GFLOP/s (Zen 5)."""
ROWS_A_PASS = 4
"""What a pass over a panel costs besides its rows, in rows."""
UNITS_A_THREAD = 4
"""Units for every thread where the number of rows is not known."""

Tile = tuple[int, int]


@dataclass(frozen=True)
class Right:
    """The right operand [..., k, n]; ``node`` a constant that is it, ``transposed``: as [n, k]."""

    value: Value
    node: Node | None
    transposed: bool


@dataclass(frozen=True)
class Job:
    """``out = chain(x @ y, ...)`` with y in panels.

    ``space``: of x, out, the chain's operands and y's panels; ``epilogue``: the arguments of the
    operands.
    """

    chain: Chain
    x: Value
    out: Value
    y: Right
    space: MatrixSpace
    tile: Tile
    epilogue: Mapping[str, Argument]


def block_rows(panels: Int, rows: Int, tile: Tile) -> Int:
    """Rows a unit: blocks of whole tiles, so that the thread with most work has least.

    A thread's share of the units is fixed, so only the rounding counts: of units to threads, of
    rows to tiles. Few rows a unit mean many passes over the panels.
    """
    if not isinstance(rows, int) or not isinstance(panels, int):
        wanted = UNITS_A_THREAD * torch.get_num_threads()
        fewest = maximum(ceil_div(rows, MOST_ROWS), 1)
        blocks = maximum(ceil_div(wanted, maximum(panels, 1)), fewest)
        return maximum(ceil_div(ceil_div(rows, blocks), tile[0]), 1) * tile[0]
    most = -(-min(rows, MOST_ROWS) // tile[0]) * tile[0]
    return min(range(most, 0, -tile[0]), key=lambda block: most_work(panels, rows, block))


def most_work(panels: int, rows: int, block: int) -> int:
    """Rows times panels of the thread that has most, with units of ``block`` rows."""
    units = -(-rows // block) * panels
    return -(-units // torch.get_num_threads()) * (block + ROWS_A_PASS)


def chunk_terms(k: Int) -> Int:
    """Chunks of equal length, about ``CHUNK``."""
    if not isinstance(k, int):
        return CHUNK
    return max(ceil_div(k, max(ceil_div(k, CHUNK * 5 // 4), 1)), 1)
