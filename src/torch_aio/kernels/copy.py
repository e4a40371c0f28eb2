"""Copies that change which dimension is dense: tiles transposed in registers.

Other copies, casts and fills are elementwise kernels with a chain that does nothing or casts.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.types import Value, i32, vec
from torch_aio.kernels.reorder import transpose
from torch_aio.kernels.spec import KernelSpec


@dataclass(frozen=True)
class TransposeSpec(KernelSpec):
    """y[a, b, i, j] = x[a, b, j, i] of 4-byte elements; i is dense in x, j in y.

    Parameters: sizes ``n0 n1 rows cols`` (of y), byte strides ``x_0 x_1 x_col`` (of j in x) and
    ``y_0 y_1 y_row``. Units: n0 * n1 * ceil(rows / f32 lanes).
    """

    params = Params(
        "n1:int rows:int cols:int x:ptr x_0:int x_1:int x_col:int y:ptr y_0:int y_1:int y_row:int"
    )

    @property
    def name(self) -> str:
        """``transpose_4b``."""
        return "transpose_4b"

    def emit(self, k: Builder) -> None:
        """A band of rows of y a unit: whole tiles through registers, the edges one by one."""
        p, lanes = k.p, k.isa.width // 32
        bands = k.ceil_div(p.rows, lanes)
        with k.loop(k.begin, k.end) as unit:
            rest, row = k.udiv(unit.i, bands), k.mul(k.urem(unit.i, bands), lanes)
            a, b = k.udiv(rest, p.n1), k.urem(rest, p.n1)
            x = k.at(p.x, k.mul(a, p.x_0), k.mul(b, p.x_1), k.mul(row, 4))
            y = k.at(p.y, k.mul(a, p.y_0), k.mul(b, p.y_1), k.mul(row, p.y_row))
            height = k.min(lanes, k.sub(p.rows, row))
            is_whole = k.icmp("eq", k.size(height), lanes)
            whole = k.select(is_whole, k.size(k.op("and", p.cols, k.size(-lanes))), k.size(0))
            with k.loop(0, whole, lanes) as col:
                self._tile(k, x, y, col.i, lanes)
            self._edge(k, x, y, whole, height)

    def _tile(self, k: Builder, x: Value, y: Value, col: Size, lanes: int) -> None:
        type_ = vec(i32, lanes)
        start = k.at(x, k.mul(col, k.p.x_col))
        loaded = [k.load(type_, start, k.mul(n, k.p.x_col)) for n in range(lanes)]
        target = k.at(y, k.mul(col, 4))
        for n, vector in enumerate(transpose(k, loaded)):
            k.store(vector, target, k.mul(n, k.p.y_row))

    def _edge(self, k: Builder, x: Value, y: Value, first: Size, height: Size) -> None:
        with k.loop(0, height) as row:
            source, target = k.at(x, k.mul(row.i, 4)), k.at(y, k.mul(row.i, k.p.y_row))
            with k.loop(first, k.p.cols) as col:
                value = k.load(i32, source, k.mul(col.i, k.p.x_col))
                k.store(value, target, k.mul(col.i, 4))
