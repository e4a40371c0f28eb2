"""B of a product of bytes: columns quantised to -127..127, in panels with their scales and sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.types import Value, f32, i32, vec
from torch_aio.kernels.padding import padded
from torch_aio.kernels.quantise import SMALLEST
from torch_aio.kernels.spec import KernelSpec

BYTES = 4
HEAD = 2
"""Rows of words before the bytes of a panel: the columns' scales (f32), their sums (i32)."""
LARGEST = 127
"""The largest weight."""
MOST_TERMS = 1 << 16
"""Terms whose sum of 255 * 127 each fits an i32."""


@dataclass(frozen=True)
class PackedInt8:
    """A constant B, [..., k, n] (``transposed``: [..., n, k]), to i32 [..., panels, words, W].

    A panel is W = ``width`` columns: ``HEAD`` rows, then ceil(k / 4) rows of words of four terms,
    the first in the lowest byte; zero past k and n. A column's scale is max|column| / 127.
    """

    width: int
    transposed: bool = False

    def __call__(self, matrix: torch.Tensor) -> torch.Tensor:
        """The packed panels."""
        rows = (matrix if self.transposed else matrix.transpose(-1, -2)).float()
        n, k = rows.shape[-2:]
        whole = padded(rows, {rows.dim() - 2: n + -n % self.width, rows.dim() - 1: k + -k % 4})
        bytes_, scale = levels_of(whole)
        sums = bytes_.sum(-1, dtype=torch.int32)
        words = bytes_.contiguous().view(torch.int32)
        panels = words.unflatten(-2, (-1, self.width)).transpose(-1, -2)
        head = (scale.view(torch.int32), sums)
        lines = [line.unflatten(-1, (-1, 1, self.width)) for line in head]
        return torch.cat([*lines, panels], dim=-2)


def levels_of(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of f32 as levels of -127 to 127 (int8), and the scale of each."""
    empty = not rows.shape[-1]
    scale = rows.new_zeros(rows.shape[:-1]) if empty else rows.abs().amax(-1) / LARGEST
    steps = scale.clamp_min(torch.finfo(torch.float32).tiny).unsqueeze(-1)
    levels = (rows / steps).round_().nan_to_num_().clamp_(-LARGEST, LARGEST)
    return levels.to(torch.int8), scale


@dataclass(frozen=True)
class PackPanelsInt8(KernelSpec):
    """y = ``PackedInt8`` of x [k][n] f32, ``inner`` * outer matrices; W = ``vectors`` registers.

    Rows of x lie ``x_row`` bytes apart, columns together; y is dense. Units: batch * ceil(n / W).
    A column with a NaN or an infinity has a scale that is none.
    """

    vectors: int
    params: ClassVar[Params] = Params(
        "x:ptr x_outer:int x_inner:int x_row:int y:ptr k:int n:int inner:int"
    )

    @property
    def name(self) -> str:
        """``pack_panels_int8_2``."""
        return f"pack_panels_int8_{self.vectors}"

    def emit(self, k: Builder) -> None:
        """One panel a unit, a vector of columns at a time."""
        p, lanes = k.p, k.isa.lanes(f32)
        width = self.vectors * lanes
        panels, words = k.ceil_div(p.n, width), k.ceil_div(p.k, 4)
        with k.loop(k.begin, k.end) as unit:
            matrix, panel = k.udiv(unit.i, panels), k.urem(unit.i, panels)
            outer, inner = k.udiv(matrix, p.inner), k.urem(matrix, p.inner)
            x = k.at(p.x, k.mul(outer, p.x_outer), k.mul(inner, p.x_inner))
            y = k.at(p.y, k.mul(k.mul(unit.i, width * BYTES), k.add(words, HEAD)))
            with k.loop(0, self.vectors) as part:
                column = k.add(k.mul(panel, width), k.mul(part.i, lanes))
                mask = k.tail_mask(k.max(k.sub(p.n, column), 0), lanes)
                source = k.at(x, k.mul(column, BYTES))
                target = k.at(y, k.mul(part.i, lanes * BYTES))
                _columns(k, source, target, mask, (p.k, width * BYTES))


def _columns(k: Builder, x: Value, y: Value, mask: Value, size: tuple[Size, int]) -> None:
    """``lanes`` columns: their scales, then words and sums."""
    terms, row = size
    lanes = k.isa.lanes(f32)
    nothing = k.const(vec(f32, lanes), 0)

    def value(term: Size) -> Value:
        return k.masked_load(vec(f32, lanes), mask, x, k.mul(term, k.p.x_row))

    with k.loop(0, terms, carry=[nothing, nothing]) as l:
        number = value(l.i)
        size_ = k.call("llvm.fabs", number.type, [number])
        l.next = [_larger(k, size_, l.v[0]), k.fma(number, nothing, l.v[1])]
    largest, odd = l.v
    steps = k.const(nothing.type, LARGEST)
    is_some = k.fcmp("ogt", largest, k.const(nothing.type, SMALLEST))
    factor = k.select(is_some, k.fdiv(steps, largest), nothing)
    scale = k.select(is_some, k.fdiv(largest, steps), nothing)
    k.store(k.fadd(scale, odd), y)
    with k.loop(0, terms, 4, carry=[k.const(vec(i32, lanes), 0)]) as l:
        word, sums = k.const(vec(i32, lanes), 0), l.v[0]
        for byte in range(4):
            exists = k.icmp("slt", k.add(l.i, byte), terms)
            number = value(k.min(k.add(l.i, byte), k.sub(terms, 1)))
            level = _level(k, k.fmul(number, factor))
            level = k.select(exists, level, k.const(level.type, 0))
            sums = k.op("add", sums, level)
            low = k.op("and", level, k.const(level.type, 255))
            word = k.op("or", word, k.op("shl", low, k.const(level.type, 8 * byte)))
        k.store(word, y, k.mul(k.add(k.udiv(l.i, 4), HEAD), row))
        l.next = [sums]
    k.store(l.v[0], y, row)


def _level(k: Builder, number: Value) -> Value:
    """Rounded, within the weights' range; NaN becomes the lowest."""
    low, high = k.const(number.type, -LARGEST), k.const(number.type, LARGEST)
    number = _larger(k, number, low)
    number = k.select(k.fcmp("olt", number, high), number, high)
    return k.cast(k.call("llvm.rint", number.type, [number]), i32)


def _larger(k: Builder, a: Value, b: Value) -> Value:
    return k.select(k.fcmp("ogt", a, b), a, b)
