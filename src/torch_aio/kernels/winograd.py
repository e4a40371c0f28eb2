"""Winograd convolution, 3x3 of stride 1 or 2, in the channel-blocked layout.

    V[t] = B^T d B         of every tile of taps^2 input pixels, t = 1 .. taps^2
    M[t] = V[t] @ U[t]     one matrix product [tiles, IC] x [IC, panel] for each t
    y = epilogue(A^T M A)  m^2 output pixels a tile

A unit is one panel of output channels of one block of tiles. Consecutive units of a thread share a
block, whose input is transformed once, into scratch memory: V and M stay in the cache of one core.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.isa import Isa
from torch_aio.codegen.types import Value, f32, i32, i64
from torch_aio.kernels import chain as chains
from torch_aio.kernels.blocked import (
    ACCUMULATOR,
    Epilogue,
    each_vector,
    full_operands,
    operand_params,
)
from torch_aio.kernels.chain import Chain, itemsize
from torch_aio.kernels.cook_toom import TAPS, filtering, multiply, taps_of
from torch_aio.kernels.microkernel import load_f32, reduction, strided_rows, zeros
from torch_aio.kernels.spec import KernelSpec

BYTES = 4
ENTRY = 4
"""Bytes of an entry of the tile table."""
LINE = 64
"""Rows and planes of scratch are a line longer than their data: equal low address bits alias in L1
(Zen 3, 28x28x128 in 32 tiles: input transform 150 -> 81 us)."""
X, Y, ROWS, COLUMNS, OPERANDS = range(5)
"""Columns of the tile table: byte offsets in x and y, output pixels that exist, then operands."""


def scratch_bytes(isa: Isa, spec: Winograd, tiles: int, in_blocks: int) -> int:
    """Scratch a thread for blocks of at most ``tiles`` tiles."""
    rows, vectors = spec.tile
    height = -(-tiles // rows) * rows
    v_row = in_blocks * isa.block * BYTES + LINE
    m_plane = height * vectors * isa.width // 8 + LINE
    return spec.taps**2 * (height * v_row + LINE + m_plane)


@dataclass(frozen=True)
class _Scratch:
    """Where V and M of a unit lie: [taps^2][tiles][IC] and [taps^2][tiles][width]."""

    v: Value
    v_row: Size
    v_plane: Size
    m: Value
    m_plane: Size


@dataclass(frozen=True)
class Winograd(KernelSpec):
    """y = epilogue(x * w), a 3x3 convolution by F(outputs^2, 3^2) of a stride, all blocked.

    ``x`` points at the first tap of output pixel 0 (padding is a halo of zeros in memory); w is
    packed by ``cook_toom.PackWinograd``; ``table`` is a ``tile_table``. ``in_blocks`` input
    blocks, ``out_vectors`` output vectors (of whole blocks).
    ``tile``: tiles x vectors of the register tile. ``masked``: the last channel block has padding
    lanes. ``prefetch``: fetch the weights of the next product during this one.
    ``work``: ``scratch_bytes``.

    Units: batch * ceil(tiles / tiles_a_block) * ceil(out_vectors / vectors). Multiplying several
    panels before they are transformed back gained nothing (IC and OC of 64 to 512, Zen 5).
    """

    outputs: int
    stride: int
    tile: tuple[int, int]
    masked: bool = False
    prefetch: bool = False
    chain: Chain = ACCUMULATOR

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The kernel's parameters, the epilogue's operands last."""
        return Params(
            "x:ptr x_batch:int x_block:int x_row:int y:ptr y_batch:int y_block:int y_row:int "
            "w:ptr table:ptr tiles:int channels:int in_blocks:int out_vectors:int "
            "tiles_a_block:int work:scratch " + operand_params(self.chain, rows=True)
        )

    @property
    def name(self) -> str:
        """``winograd4_f32_5x4_relu_1f3a9c``, ``winograd2s2_f32_5x4``."""
        tail = ("_tail" if self.masked else "") + ("_prefetch" if self.prefetch else "")
        chain = f"_{self.chain.name}" if self.chain.name else ""
        stride = f"s{self.stride}" if self.stride > 1 else ""
        return f"winograd{self.outputs}{stride}_f32_{self.tile[0]}x{self.tile[1]}{tail}{chain}"

    @property
    def taps(self) -> int:
        """Input pixels a side of a tile."""
        return taps_of(self.outputs, self.stride)

    def emit(self, k: Builder) -> None:
        """A thread's first unit of a block transforms the input of all the others."""
        p = k.p
        panels = k.ceil_div(p.out_vectors, self.tile[1])
        blocks = k.ceil_div(p.tiles, p.tiles_a_block)
        scratch = self._scratch(k)
        with k.loop(k.begin, k.end) as unit:
            panel, rest = k.urem(unit.i, panels), k.udiv(unit.i, panels)
            block, batch = k.urem(rest, blocks), k.udiv(rest, blocks)
            first = k.mul(block, p.tiles_a_block)
            tiles = first, k.min(p.tiles_a_block, k.sub(p.tiles, first))
            is_first = k.icmp("eq", unit.i, k.begin)
            with k.when(k.op("or", is_first, k.icmp("eq", k.size(panel), 0))):
                self._transform_input(k, scratch, batch, tiles)
            self._multiply(k, scratch, panel, tiles[1])
            self._transform_output(k, scratch, batch, panel, tiles)

    def _scratch(self, k: Builder) -> _Scratch:
        rows, vectors = self.tile
        height = k.mul(k.ceil_div(k.p.tiles_a_block, rows), rows)
        v_row = k.add(k.mul(k.p.in_blocks, k.isa.block * BYTES), LINE)
        v_plane = k.add(k.mul(height, v_row), LINE)
        m = k.at(k.p.work, k.mul(v_plane, self.taps**2))
        m_plane = k.add(k.mul(height, vectors * k.isa.width // 8), LINE)
        return _Scratch(k.p.work, v_row, v_plane, m, m_plane)

    # ---- input ----------------------------------------------------------------------------

    def _transform_input(
        self, k: Builder, scratch: _Scratch, batch: Size, tiles: tuple[Size, Size]
    ) -> None:
        p, pixel, vector = k.p, k.isa.block * BYTES, k.isa.vector(f32)
        (first, count), taps = tiles, self.taps
        buffer = k.alloca(taps * taps * pixel)
        matrix = filtering(self.outputs, self.stride).b
        with k.loop(0, p.in_blocks) as block, each_vector(k) as lane, k.loop(0, count) as tile:
            x = k.at(p.x, k.mul(batch, p.x_batch), k.mul(block.i, p.x_block), k.mul(lane, BYTES))
            here = k.add(first, tile.i)
            ragged, source = self._is_ragged(k, here), k.at(x, _entry(k, X, here))
            with k.when(ragged):
                self._copy_ragged(k, source, here, buffer)
            base = k.select(ragged, buffer, source)
            row = k.select(ragged, k.size(taps * pixel), k.size(p.x_row))
            columns = [
                multiply(k, matrix, [k.load(vector, base, k.mul(row, r), c * pixel)
                                     for r in range(taps)])
                for c in range(taps)
            ]  # fmt: skip
            lanes = k.add(k.mul(block.i, pixel), k.mul(lane, BYTES))
            target = k.at(scratch.v, k.mul(tile.i, scratch.v_row), lanes)
            for r in range(taps):
                for c, value in enumerate(multiply(k, matrix, [column[r] for column in columns])):
                    k.store(value, target, k.mul(scratch.v_plane, r * taps + c))

    def _is_ragged(self, k: Builder, tile: Size) -> Value:
        """Whether some output pixels of a tile do not exist."""
        sizes = (_entry(k, column, tile) for column in (ROWS, COLUMNS))
        rows, columns = (k.icmp("ne", size, self.outputs) for size in sizes)
        return k.op("or", rows, columns)

    def _copy_ragged(self, k: Builder, source: Value, tile: Size, buffer: Value) -> None:
        """The pixels that exist of a tile at the border, zeros elsewhere."""
        pixel, vector = k.isa.block * BYTES, k.isa.vector(f32)
        for n in range(self.taps**2):
            k.store(k.const(vector, 0), buffer, n * pixel)
        rows, columns = (
            k.add(k.mul(k.sub(_entry(k, c, tile), 1), self.stride), TAPS) for c in (ROWS, COLUMNS)
        )
        with k.loop(0, rows) as r, k.loop(0, columns) as c:
            value = k.load(vector, source, k.mul(r.i, k.p.x_row), k.mul(c.i, pixel))
            k.store(value, buffer, k.mul(r.i, self.taps * pixel), k.mul(c.i, pixel))

    # ---- products -------------------------------------------------------------------------

    def _multiply(self, k: Builder, scratch: _Scratch, panel: Size, count: Size) -> None:
        rows, vectors = self.tile
        step = vectors * k.isa.width // 8
        terms = k.mul(k.p.in_blocks, k.isa.block)
        product = k.mul(terms, step)
        weights = k.at(k.p.w, k.mul(k.mul(panel, self.taps**2), product))
        with k.loop(0, self.taps**2) as t:
            v, w, m = (
                k.at(base, k.mul(t.i, plane))
                for base, plane in (
                    (scratch.v, scratch.v_plane), (weights, product), (scratch.m, scratch.m_plane),
                )
            )  # fmt: skip
            with k.loop(0, count, rows) as tile:
                ahead = k.add(product, k.mul(k.urem(k.udiv(tile.i, rows), vectors), LINE))

                def load(k: Builder, weights: Value, offset: Size, vector: int) -> Value:
                    if self.prefetch and vector == 0:
                        k.prefetch(weights, ahead, offset, locality=2)
                    return load_f32(k, weights, offset, vector)

                a = strided_rows(k, k.at(v, k.mul(tile.i, scratch.v_row)), scratch.v_row, rows)
                sums = reduction(k, zeros(k, rows, vectors), a, BYTES, w, step, terms, load=load)
                out = k.at(m, k.mul(tile.i, step))
                for r, line in enumerate(sums):
                    for j, value in enumerate(line):
                        k.store(value, out, r * step + j * k.isa.width // 8)

    # ---- output ---------------------------------------------------------------------------

    def _transform_output(
        self, k: Builder, scratch: _Scratch, batch: Size, panel: Size, tiles: tuple[Size, Size]
    ) -> None:
        p, vectors, width = k.p, self.tile[1], k.isa.width // 8
        first = k.mul(panel, vectors)
        per_block, lanes = k.isa.block // k.isa.lanes(f32), k.isa.lanes(f32)
        with k.loop(first, k.min(k.add(first, vectors), p.out_vectors)) as vector:
            block, lane = k.udiv(vector.i, per_block), k.mul(k.urem(vector.i, per_block), lanes)
            y = k.at(p.y, k.mul(batch, p.y_batch), k.mul(block, p.y_block),
                     k.mul(lane, itemsize(self.chain.result)))  # fmt: skip
            channels = p.channels if self.masked else None
            epilogue = Epilogue.at(k, self.chain, batch, block, lane, channels)
            m = k.at(scratch.m, k.mul(k.sub(vector.i, first), width))
            with k.loop(0, tiles[1]) as tile:
                source = k.at(m, k.mul(tile.i, vectors * width))
                self._store_tile(k, source, scratch.m_plane, y, k.add(tiles[0], tile.i), epilogue)

    def _store_tile(
        self, k: Builder, m: Value, m_plane: Size, y: Value, tile: Size, epilogue: Epilogue
    ) -> None:
        """A^T M A of one vector of channels; pixels past the plane are left out."""
        matrix, taps, vector = filtering(self.outputs, self.stride).a, self.taps, k.isa.vector(f32)
        columns = [
            multiply(k, matrix, [k.load(vector, m, k.mul(m_plane, r * taps + c))
                                 for r in range(taps)])
            for c in range(taps)
        ]  # fmt: skip
        y = k.at(y, _entry(k, Y, tile))
        rows, across = _entry(k, ROWS, tile), _entry(k, COLUMNS, tile)
        full = full_operands(self.chain)
        starts = [_entry(k, OPERANDS + n, tile) for n in range(len(full))]
        size = k.isa.block * itemsize(self.chain.result)
        for r in range(self.outputs):
            with k.when(k.icmp("sgt", rows, r)):
                line = multiply(k, matrix, [column[r] for column in columns])
                for c, value in enumerate(line):
                    with k.when(k.icmp("sgt", across, c)):
                        offsets = [
                            k.add(
                                k.add(start, k.mul(getattr(k.p, f"e{o}_row"), r)),
                                c * k.isa.block * itemsize(self.chain.inputs[o].dtype),
                            )
                            for start, o in zip(starts, full, strict=True)
                        ]
                        result = epilogue(value, offsets)
                        chains.store(k, result, k.at(y, k.mul(k.p.y_row, r)), c * size)


def _entry(k: Builder, column: int, tile: Size) -> Value:
    """An entry of the tile table."""
    row = k.mul(k.p.tiles, column * ENTRY)
    return k.cast(k.load(i32, k.p.table, row, k.mul(tile, ENTRY)), i64)


def tile_table(
    outputs: int, batch: int, height: int, width: int, *strides: int
) -> npt.NDArray[np.int32]:
    """The table of tiles of ``batch`` output planes: [columns, tiles].

    ``strides`` are bytes from one output image, row and pixel to the next in x, y and the "full"
    operands, one after the other.

    Raises OverflowError where an offset needs more than 31 bits.
    """
    down, across = -(-height // outputs), -(-width // outputs)
    image, row, column = np.indices((batch, down, across), dtype=np.int64).reshape(3, -1)
    row, column = row * outputs, column * outputs
    x, y, *operands = (
        image * strides[n] + row * strides[n + 1] + column * strides[n + 2]
        for n in range(0, len(strides), 3)
    )
    sizes = [np.minimum(outputs, height - row), np.minimum(outputs, width - column)]
    table = np.stack([x, y, *sizes, *operands])
    if table.size and table.max() >= 2**31:
        raise OverflowError("a plane of more than 2 GiB does not fit the tile table")
    return table.astype(np.int32)
