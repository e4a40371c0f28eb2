"""B of a product by Strassen's algorithm (``kernels/strassen.py``): seven sums of its quarters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.types import Value, f32
from torch_aio.kernels.once import run_once
from torch_aio.kernels.reorder import transpose
from torch_aio.kernels.spec import KernelSpec
from torch_aio.runtime import pages
from torch_aio.runtime.machine import machine

BYTES = 4
PRODUCTS = 7


@dataclass(frozen=True)
class StrassenPanels:
    """A constant B, [k, n] (``transposed``: [n, k]), to [n / 2W][7][k / 2][W], in P's order.

    k / 2 is a multiple of the lanes, n of 2 W.
    """

    width: int
    transposed: bool = False

    def __call__(self, matrix: torch.Tensor) -> torch.Tensor:
        """The packed panels."""
        host = machine()
        assert host is not None, "constants are packed for kernels"
        matrix = matrix.contiguous()
        terms, columns = reversed(matrix.shape) if self.transposed else matrix.shape
        panels = columns // 2 // self.width
        packed = pages.empty((panels, PRODUCTS, terms // 2, self.width), torch.float32)
        spec = PackStrassen(self.width // host.isa.lanes(f32), self.transposed)
        run_once(host, spec, panels, x=matrix, y=packed, k=terms, n=columns)
        return packed


@dataclass(frozen=True)
class PackStrassen(KernelSpec):
    """y = B's panels, see ``StrassenPanels``; W = ``vectors`` registers. Units: n / 2W panels."""

    vectors: int
    transposed: bool = False
    params: ClassVar[Params] = Params("x:ptr y:ptr k:int n:int")

    @property
    def name(self) -> str:
        """``pack_strassen_f32_2_transposed``."""
        return f"pack_strassen_f32_{self.vectors}" + ("_transposed" if self.transposed else "")

    def emit(self, k: Builder) -> None:
        """One panel of each sum a unit."""
        p, row = k.p, self.vectors * k.isa.lanes(f32) * BYTES
        half_k, half_n = k.udiv(p.k, 2), k.udiv(p.n, 2)
        part = k.mul(half_k, row)
        with k.loop(k.begin, k.end) as unit:
            y = k.at(p.y, k.mul(unit.i, k.mul(part, PRODUCTS)))
            if self.transposed:
                quarters = (0, k.mul(half_n, k.mul(p.k, BYTES)), k.mul(half_k, BYTES))
                x = k.at(p.x, k.mul(unit.i, k.mul(p.k, row)))
                self._transposed(k, x, y, quarters, part)
            else:
                quarters = (0, k.mul(half_n, BYTES), k.mul(half_k, k.mul(p.n, BYTES)))
                self._copied(k, k.at(p.x, k.mul(unit.i, row)), y, quarters, part)

    def _transposed(
        self, k: Builder, x: Value, y: Value, quarters: tuple[Size, ...], part: Size
    ) -> None:
        lanes = k.isa.lanes(f32)
        row, line = self.vectors * lanes * BYTES, k.mul(k.p.k, BYTES)
        with k.loop(0, self.vectors) as v, k.loop(0, k.udiv(k.p.k, 2), lanes) as term:
            source = k.at(x, k.mul(v.i, k.mul(line, lanes)), k.mul(term.i, BYTES))
            target = k.at(y, k.mul(term.i, row), k.mul(v.i, lanes * BYTES))
            for product, combine in enumerate(_SUMS):
                lines = [k.at(source, k.mul(line, r)) for r in range(lanes)]
                rows = [combine(k, _quarters(k, each, quarters)) for each in lines]
                for n, value in enumerate(transpose(k, rows)):
                    k.store(value, k.at(target, k.mul(part, product)), n * row)

    def _copied(
        self, k: Builder, x: Value, y: Value, quarters: tuple[Size, ...], part: Size
    ) -> None:
        step = k.isa.width // 8
        row = self.vectors * step
        with k.loop(0, k.udiv(k.p.k, 2)) as term, k.loop(0, row, step) as v:
            source = k.at(x, k.mul(term.i, k.mul(k.p.n, BYTES)), v.i)
            target = k.at(y, k.mul(term.i, row), v.i)
            for product, combine in enumerate(_SUMS):
                value = combine(k, _quarters(k, source, quarters))
                k.store(value, k.at(target, k.mul(part, product)))


Quarter = Callable[[int, int], Value]


def _quarters(k: Builder, x: Value, offsets: tuple[Size, ...]) -> Quarter:
    """Loads by row and column of the quarter, each 1 or 2."""
    _, right, below = offsets

    def load(row: int, column: int) -> Value:
        offset = k.add(below if row > 1 else 0, right if column > 1 else 0)
        return k.load(k.isa.vector(f32), x, offset)

    return load


def _t1(k: Builder, b: Quarter) -> Value:
    return k.fsub(b(1, 2), b(1, 1))


def _t2(k: Builder, b: Quarter) -> Value:
    return k.fsub(b(2, 2), _t1(k, b))


_SUMS: tuple[Callable[[Builder, Quarter], Value], ...] = (
    lambda _, b: b(1, 1),
    lambda _, b: b(2, 1),
    _t2,
    lambda k, b: k.fsub(b(2, 2), b(1, 2)),
    lambda k, b: k.fsub(b(2, 1), _t2(k, b)),
    _t1,
    lambda _, b: b(2, 2),
)
