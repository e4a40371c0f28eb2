"""How the output pixels of a direct convolution are put into register tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_aio.codegen.isa import Isa
from torch_aio.ir.symbols import Int, ceil_div, product
from torch_aio.kernels.conv_tiles import EVEN_TILES, PLANAR_TILES, TILES, tiles_for
from torch_aio.kernels.pack_conv import pixel_table
from torch_aio.plan.families.reorder import planes
from torch_aio.plan.families.windows import Job
from torch_aio.plan.lowering import Lowering
from torch_aio.plan.value import Value

LEAST_RUN = 16
"""Pixels of a row that evenly spaced tiles of planar input need at least."""
MOST_STRIDE = 2
"""Strides at which what a tile reads past a row stays within ``kernels.conv.OVERREAD`` pixels."""
MANY = 512
"""What a number of pixels that is not known is taken for."""


@dataclass(frozen=True)
class Tiles:
    """Register tiles of ``tile`` (pixels, vectors).

    ``step``: bytes between the pixels of a tile where they lie evenly; then a tile stays within
    ``run`` pixels, and its last pixel repeats, or the last tile of a run begins earlier
    (``overlaps``). 0: tiles cross the ends of rows.
    """

    tile: tuple[int, int]
    step: int = 0
    run: int = 0
    overlaps: bool = False

    @property
    def name(self) -> str:
        """``direct 14x2 even``."""
        return "direct {}x{}".format(*self.tile) + (" even" if self.step else "")

    def count(self, pixels: Int) -> Int:
        """Tiles for so many pixels."""
        if not self.step:
            return ceil_div(pixels, self.tile[0])
        return pixels // self.run * -(-self.run // self.tile[0])

    def table(self, ctx: Lowering, job: Job, images: Int, strides: Sequence[Int]) -> Value:
        """The table of output pixels: byte offsets in x, in y, and in operands that vary like y."""
        conv = job.conv
        _, _, height, width = planes(job.target.shape)
        steps = strides[0], conv.stride[0] * strides[2], conv.stride[1] * strides[3]
        run = self.run if self.step else product((images, height, width))
        form = (self.tile[0], run, int(self.overlaps))
        return ctx.table(pixel_table, *form, images, height, width, *steps, *job.result_strides)


def tilings(isa: Isa, job: Job, x: Value, vectors: int, *, is_whole: bool) -> list[Tiles]:
    """Those worth trying for ``vectors`` of output channels, the best guess first.

    Evenly spaced tiles run along rows, or along planes without gaps, where sizes are known. Planar
    input must not be read past its end, so there they overlap: pixels are computed twice, which is
    right only where one chunk is the whole sum.
    """
    conv = job.conv
    n, _, height, width = planes(job.target.shape)
    pixels, run, step = n * height * width, 1, 0
    even: dict[tuple[int, int], float] = {}
    if isinstance(height, int) and isinstance(width, int) and height * width > 0:
        step, run = conv.stride[1] * max(x.block, 1) * x.itemsize, width
        if x.block and conv.stride[0] * x.byte_stride[2] == width * step:
            run = height * width
        if conv.stride[1] <= MOST_STRIDE if x.block else is_whole and run >= LEAST_RUN:
            even = (EVEN_TILES if x.block else PLANAR_TILES)[isa.name]
    count = max(pixels, 1) if isinstance(pixels, int) else MANY
    found = tiles_for(TILES[isa.name], even, count, run, vectors)
    return [Tiles(t, step, run, not x.block) if is_even else Tiles(t) for t, is_even in found]
