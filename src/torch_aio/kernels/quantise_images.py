"""Quantised images in the channel-blocked layout, a scale and a zero point for each image.

Three steps: extremes of every row of every channel block, then of the image, then bytes. What the
numbers mean is said in ``kernels.quantise``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.types import Value, f32, i8, i32
from torch_aio.kernels.quantise import Levels, extremes
from torch_aio.kernels.spec import KernelSpec

BYTES = 4
KINDS = 3
"""Numbers of each row: the lowest, the highest, and NaN where one is not finite."""
INFO = 3
"""Words that are known of an image: scale (f32), zero less the offset (i32), 1 / scale (f32)."""


@dataclass(frozen=True)
class RowExtremes(KernelSpec):
    """found [image][KINDS][blocks * height] of x, ``elements`` f32 a row. Units: rows."""

    params: ClassVar[Params] = Params(
        "x:ptr x_batch:int x_block:int x_row:int found:ptr blocks:int height:int elements:int"
    )

    @property
    def name(self) -> str:
        """``row_extremes_f32``."""
        return "row_extremes_f32"

    def emit(self, k: Builder) -> None:
        """One row a unit."""
        p = k.p
        count = k.mul(p.blocks, p.height)
        with k.loop(k.begin, k.end) as unit:
            image, place = k.udiv(unit.i, count), k.urem(unit.i, count)
            block, row = k.udiv(place, p.height), k.urem(place, p.height)
            x = k.at(p.x, k.mul(image, p.x_batch), k.mul(block, p.x_block), k.mul(row, p.x_row))
            for kind, value in enumerate(extremes(k, x, p.elements)):
                line = k.add(k.mul(image, KINDS), kind)
                k.store(value, p.found, k.mul(k.add(k.mul(line, count), place), BYTES))


@dataclass(frozen=True)
class ImageLevels(KernelSpec):
    """info: ``INFO`` words of images of ``count`` rows. Units: images."""

    params: ClassVar[Params] = Params("found:ptr info:ptr count:int")

    @property
    def name(self) -> str:
        """``image_levels``."""
        return "image_levels"

    def emit(self, k: Builder) -> None:
        """One image a unit."""
        p, levels = k.p, Levels(1)
        line = k.mul(p.count, BYTES)
        with k.loop(k.begin, k.end) as unit:
            found = k.at(p.found, k.mul(k.mul(unit.i, KINDS), line))
            low, high, odd = (
                extremes(k, k.at(found, k.mul(line, kind)), p.count)[kind] for kind in range(KINDS)
            )
            scale, factor, zero = levels.parameters(k, low, high, odd)
            info = k.at(p.info, k.mul(unit.i, INFO * BYTES))
            k.store(scale, info)
            k.store(levels.digits_of(k, k.cast(zero, i32))[0], info, BYTES)
            k.store(factor, info, 2 * BYTES)


@dataclass(frozen=True)
class QuantiseImages(KernelSpec):
    """q = bytes of x with a frame of zeros' level around every plane.

    x: rows of ``elements`` f32; q: planes of ``rows`` rows, those of x from row ``top``; ``left``
    and ``right``: bytes before and behind a row of x (whole pixels). Units: images * blocks * rows.
    """

    params: ClassVar[Params] = Params(
        "x:ptr x_batch:int x_block:int x_row:int info:ptr q:ptr q_batch:int q_block:int q_row:int "
        "blocks:int rows:int top:int height:int left:int right:int elements:int"
    )

    @property
    def name(self) -> str:
        """``quantise_images_f32``."""
        return "quantise_images_f32"

    def emit(self, k: Builder) -> None:
        """One row of q a unit."""
        p, lanes, levels = k.p, k.isa.lanes(f32), Levels(1)
        count = k.mul(p.blocks, p.rows)
        with k.loop(k.begin, k.end) as unit:
            image, place = k.udiv(unit.i, count), k.urem(unit.i, count)
            block, line = k.udiv(place, p.rows), k.urem(place, p.rows)
            q = k.at(p.q, k.mul(image, p.q_batch), k.mul(block, p.q_block), k.mul(line, p.q_row))
            info = k.at(p.info, k.mul(image, INFO * BYTES))
            stored = k.load(i32, info, BYTES)
            frame = k.cast(k.splat(stored, lanes), i8)
            row = k.sub(line, p.top)
            inside = k.op("and", k.icmp("sge", row, 0), k.icmp("slt", row, p.height))
            width = k.add(k.add(p.left, p.right), p.elements)
            with k.when(k.icmp("eq", inside, 0)):
                _fill(k, q, width, frame)
            with k.when(inside):
                _fill(k, q, p.left, frame)
                x = k.at(p.x, k.mul(image, p.x_batch), k.mul(block, p.x_block), k.mul(row, p.x_row))
                zero = k.op("add", stored, k.const(i32, k.isa.dot.offset if k.isa.dot else 0))
                by = k.load(f32, info, 2 * BYTES), k.cast(zero, f32)
                levels.quantise(k, x, k.at(q, p.left), p.elements, by)
                _fill(k, k.at(q, k.add(p.left, p.elements)), p.right, frame)


def _fill(k: Builder, q: Value, count: Size, frame: Value) -> None:
    with k.loop(0, count, frame.type.lanes) as part:
        k.store(frame, q, part.i)
