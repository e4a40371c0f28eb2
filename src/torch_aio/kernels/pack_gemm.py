"""B of a matrix product in panels [ceil(n / W)][k][W], zero past n: packed once, or by a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.types import Type, Value, f32, vec
from torch_aio.kernels.once import run_once
from torch_aio.kernels.padding import padded
from torch_aio.kernels.reorder import transpose
from torch_aio.kernels.spec import KernelSpec
from torch_aio.runtime import pages
from torch_aio.runtime.machine import machine

BYTES = 4


@dataclass(frozen=True)
class PackedPanels:
    """A constant B, [..., k, n] (``transposed``: [..., n, k]) to [..., ceil(n / W), k, W]."""

    width: int
    transposed: bool = False

    def __call__(self, matrix: torch.Tensor) -> torch.Tensor:
        """The packed panels."""
        host = machine()
        if matrix.dtype != torch.float32 or host is None:
            return self._by_pytorch(matrix)
        matrix = matrix.contiguous()
        terms, columns = matrix.shape[-2:][:: -1 if self.transposed else 1]
        panels = -(-columns // self.width)
        packed = pages.empty((*matrix.shape[:-2], panels, terms, self.width), torch.float32)
        spec = PackPanels(self.width // host.isa.lanes(f32), self.transposed)
        outer = packed.numel() // max(panels * terms * self.width, 1)
        run_once(host, spec, outer * panels, x=matrix, x_outer=terms * columns * BYTES,
                 x_inner=0, x_row=matrix.shape[-1] * BYTES, y=packed, k=terms, n=columns,
                 inner=1)  # fmt: skip
        return packed

    def _by_pytorch(self, matrix: torch.Tensor) -> torch.Tensor:
        rows = matrix if self.transposed else matrix.transpose(-1, -2)
        columns = rows.shape[-2] + -rows.shape[-2] % self.width
        whole = padded(rows, {rows.dim() - 2: columns})
        panels = whole.unflatten(-2, (columns // self.width, self.width))
        packed: torch.Tensor = panels.transpose(-1, -2).contiguous()
        return packed


@dataclass(frozen=True)
class PackPanels(KernelSpec):
    """y = panels of x, for ``inner`` * outer matrices; W = ``vectors`` registers.

    ``transposed``: x is [n][k] with terms adjacent, else [k][n] with columns adjacent, its rows
    ``x_row`` bytes apart. y is dense. Units: batch * ceil(n / W).
    """

    vectors: int
    transposed: bool = False
    params: ClassVar[Params] = Params(
        "x:ptr x_outer:int x_inner:int x_row:int y:ptr k:int n:int inner:int"
    )

    @property
    def name(self) -> str:
        """``pack_panels_f32_2_transposed``."""
        return f"pack_panels_f32_{self.vectors}" + ("_transposed" if self.transposed else "")

    def emit(self, k: Builder) -> None:
        """One panel a unit."""
        p, lanes = k.p, k.isa.lanes(f32)
        width = self.vectors * lanes
        panels = k.ceil_div(p.n, width)
        with k.loop(k.begin, k.end) as unit:
            matrix, column = k.udiv(unit.i, panels), k.mul(k.urem(unit.i, panels), width)
            outer, inner = k.udiv(matrix, p.inner), k.urem(matrix, p.inner)
            x = k.at(p.x, k.mul(outer, p.x_outer), k.mul(inner, p.x_inner))
            y = k.at(p.y, k.mul(k.mul(unit.i, width * BYTES), p.k))
            emit_panel(k, x, p.x_row, y, (column, p.n, p.k), self.vectors, self.transposed)


def emit_panel(
    k: Builder, x: Value, x_row: Size, y: Value, place: tuple[Size, Size, Size], vectors: int,
    transposed: bool, element: Type = f32, scale: Value | None = None,
) -> None:  # fmt: skip
    """The panel from column ``place[0]``; x has ``place[1]`` columns of ``place[2]`` terms.

    A transposed x may hold bytes, and is multiplied by ``scale``.
    """
    column, columns, terms = place
    if transposed:
        with k.loop(0, vectors) as part:
            lanes = k.isa.lanes(f32)
            left = k.sub(columns, k.add(column, k.mul(part.i, lanes)))
            source = k.at(x, k.mul(k.add(column, k.mul(part.i, lanes)), x_row))
            target = k.at(y, k.mul(part.i, lanes * BYTES))
            _transposed_part(k, source, x_row, target, (left, terms), vectors, element, scale)
    else:
        source = k.at(x, k.mul(column, BYTES))
        _copied(k, source, x_row, y, (k.sub(columns, column), terms), vectors)


def _copied(
    k: Builder, x: Value, x_row: Size, y: Value, size: tuple[Size, Size], vectors: int
) -> None:
    left, terms = size
    lanes, vector = k.isa.lanes(f32), k.isa.vector(f32)
    width, row = vectors * lanes, vectors * lanes * BYTES
    with k.when(k.icmp("sge", left, width)), k.loop(0, terms) as term:
        source, target = k.at(x, k.mul(term.i, x_row)), k.at(y, k.mul(term.i, row))
        for v in range(vectors):
            k.store(k.load(vector, source, v * lanes * BYTES), target, v * lanes * BYTES)
    with k.when(k.icmp("slt", left, width)):
        masks = [k.tail_mask(k.sub(left, v * lanes), lanes) for v in range(vectors)]
        with k.loop(0, terms) as term:
            source, target = k.at(x, k.mul(term.i, x_row)), k.at(y, k.mul(term.i, row))
            for v, mask in enumerate(masks):
                value = k.masked_load(vector, mask, source, v * lanes * BYTES)
                k.store(value, target, v * lanes * BYTES)


def _transposed_part(
    k: Builder, x: Value, x_row: Size, y: Value, size: tuple[Size, Size], vectors: int,
    element: Type, scale: Value | None,
) -> None:  # fmt: skip
    """``lanes`` columns of a panel: squares of registers transposed; rows past n give zeros."""
    left, terms = size
    lanes, vector = k.isa.lanes(f32), k.isa.vector(f32)
    row = vectors * lanes * BYTES

    def number(raw: Value) -> Value:
        value = k.cast(raw, f32 if not raw.type.lanes else vector)
        return k.fmul(value, k.splat(scale, value.type.lanes)) if scale is not None else value

    lines, zero = [], k.const(vector, 0)
    for r in range(lanes):
        exists = k.icmp("sgt", left, r)
        lines.append((exists, k.at(x, k.select(exists, k.size(k.mul(x_row, r)), k.size(0)))))
    whole = k.mul(k.udiv(terms, lanes), lanes)
    with k.when(k.icmp("sgt", left, 0)):
        with k.loop(0, whole, lanes) as term:
            rows = [k.load(vec(element, lanes), x, k.mul(term.i, element.bytes)) for _, x in lines]
            values = [
                k.select(e, number(row), zero) for (e, _), row in zip(lines, rows, strict=True)
            ]
            target = k.at(y, k.mul(term.i, row))
            for n, value in enumerate(transpose(k, values)):
                k.store(value, target, n * row)
        with k.loop(whole, terms) as term:
            value = zero
            for lane, (exists, line) in enumerate(lines):
                one = number(k.load(element, line, k.mul(term.i, element.bytes)))
                value = k.insert(value, k.select(exists, one, k.const(f32, 0)), lane)
            k.store(value, y, k.mul(term.i, row))
    with k.when(k.icmp("sle", left, 0)), k.loop(0, terms) as term:
        k.store(zero, y, k.mul(term.i, row))
