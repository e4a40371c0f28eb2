"""Direct convolutions of groups of whole channel blocks, the input blocked or planar."""

from __future__ import annotations

import math
from dataclasses import replace

from torch_aio.codegen.types import f32
from torch_aio.ir.symbols import Int, ceil_div, product
from torch_aio.kernels.conv import Conv as ConvSpec
from torch_aio.kernels.conv import tiles_for
from torch_aio.kernels.pack_conv import PackConv, pixel_table
from torch_aio.kernels.reorder import PadPlanar
from torch_aio.plan.families.reorder import plane_strides, planes
from torch_aio.plan.families.windows import (
    Conv,
    Job,
    full_values,
    operand_arguments,
    origin,
)
from torch_aio.plan.lowering import Lowering
from torch_aio.plan.value import Value

MOST_COLUMNS = 16
"""Taps of a row that the planar kernel unrolls."""
TERMS = 160
"""Products summed before they are added to the rest (see ``kernels.conv``)."""
TILES_A_BLOCK = 32
"""Register tiles for one pass over the weights: 16 to 64 are alike (ResNet-50, Zen 5)."""
STREAMED = 1 << 18
"""Bytes of weights from which prefetching the next panel pays: 7x7x512 158 -> 193 GF/s (Zen 5)."""
SMALL_PLANE = 512
"""Pixels up to which the images of a batch share their register tiles."""


def tiles(ctx: Lowering, job: Job) -> list[tuple[int, int]]:
    """Register tiles worth trying, the best guess first."""
    n, _, height, width = planes(job.target.shape)
    pixels = n * height * width
    return tiles_for(
        ctx.isa, pixels if isinstance(pixels, int) else SMALL_PLANE, _vectors(ctx, job.conv)
    )


def lower(ctx: Lowering, job: Job, x: Value, tile: tuple[int, int]) -> None:
    """The step, and one that pads a planar input where it needs padding."""
    conv, target = job.conv, job.target
    if x.block:
        strides, columns = x.byte_stride, 0
    else:
        x, strides = _planar(ctx, x, conv)
        columns = max(n for n in range(1, MOST_COLUMNS + 1) if conv.kernel[1] % n == 0)
    lanes, block = ctx.isa.lanes(f32), ctx.isa.block
    inner, vectors = conv.inputs // conv.groups, _vectors(ctx, conv)
    c_in = 1 if columns else block
    n, _, height, width = planes(target.shape)
    is_small = isinstance(height * width, int) and height * width < SMALL_PLANE
    merged = is_small and job.shares_channels
    images, batch = (n, 1) if merged else (1, n)
    pixels = ceil_div(images * height * width, tile[0]) * tile[0]
    panels = -(-vectors // tile[1]) * conv.groups
    panels_a_unit = 1 if _is_weight_bound(conv, x, target) else panels
    spec = ConvSpec(tile, columns, conv.dilation[1] if columns else 1,
                    bool(conv.outputs % block), job.chain)  # fmt: skip
    y_batch, y_block, _, _ = target.byte_stride
    ctx.step(
        spec,
        -(-panels // panels_a_unit) * batch * (pixels // tile[0]),
        ("y",),
        x=origin(x, conv.padding, strides), x_batch=strides[0], x_block=strides[1],
        tap_row=conv.dilation[0] * strides[2],
        tap_column=conv.dilation[1] * strides[3] * max(columns, 1),
        w=ctx.constant(job.weight, PackConv(conv.groups, block, c_in, tile[1] * lanes)),
        y=target, y_batch=y_batch, y_block=y_block,
        table=_pixel_table(ctx, job, strides, tile[0], images), batch=batch, pixels=pixels,
        channels=conv.outputs, groups=conv.groups, in_blocks=-(-inner // c_in),
        out_vectors=vectors, kernel_h=conv.kernel[0], kernel_w=conv.kernel[1] // max(columns, 1),
        chunk=_chunk(-(-inner // c_in), math.prod(conv.kernel) * c_in),
        panels_a_unit=panels_a_unit, tiles_a_block=TILES_A_BLOCK,
        prefetch=int(_weight_bytes(conv) >= STREAMED),
        **operand_arguments(job.chain, job.operands, n, rows=False),
    )  # fmt: skip


def _pixel_table(
    ctx: Lowering, job: Job, strides: tuple[Int, ...], tile: int, images: Int
) -> Value:
    """The table of output pixels: byte offsets in x, y and the operands that vary like y."""
    conv = job.conv
    n, _, height, width = planes(job.target.shape)
    sizes: list[Int] = [strides[0], conv.stride[0] * strides[2], conv.stride[1] * strides[3]]
    for value in (job.target, *full_values(job.chain, job.operands)):
        batch, _, row, pixel = value.byte_stride
        sizes += [0 if value.shape[0] == 1 and n != 1 else batch, row, pixel]
    return ctx.table(pixel_table, tile, images, height, width, *sizes)


def _planar(ctx: Lowering, x: Value, conv: Conv) -> tuple[Value, tuple[Int, ...]]:
    """A plain input as the planar kernel reads it: rows dense, padding in memory around it."""
    strides = plane_strides(x)
    if conv.halo == (0, 0) and strides[3] == x.itemsize:
        return x, strides
    n, channels, height, width = planes(x.shape)
    (top, left), (bottom, right) = conv.padding, conv.halo
    padded = ctx.temporary(
        (n, channels, height + top + bottom, width + left + right), x.dtype, "pad"
    )
    x_n, x_c, x_h, x_w = strides
    y_n, y_c, y_row, y_pixel = padded.byte_stride
    ctx.step(
        PadPlanar(dense=x_w == x.itemsize),
        product((n, channels, height + top + bottom)),
        ("y",),
        x=x, x_n=x_n, x_c=x_c, x_h=x_h, x_w=x_w, y=padded, y_n=y_n, y_c=y_c, y_row=y_row,
        channels=channels, height=height, width=width,
        top=top, bottom=bottom, left=left, right=right,
    )  # fmt: skip
    inside = top * y_row + left * y_pixel
    return replace(padded, offset=padded.offset + inside), padded.byte_stride


def _chunk(blocks: int, terms: int) -> int:
    """Input blocks a chunk: at most ``TERMS`` products, chunks of even size."""
    most = max(1, TERMS // terms)
    return -(-blocks // -(-blocks // most))


def _weight_bytes(conv: Conv) -> int:
    return conv.flops * 2


def _is_weight_bound(conv: Conv, x: Value, y: Value) -> bool:
    """Whether threads should share the pixels and split the output channels."""
    elements = product(x.shape) + product(y.shape)
    data = elements * 4 if isinstance(elements, int) else 1 << 20
    return _weight_bytes(conv) > data


def _vectors(ctx: Lowering, conv: Conv) -> int:
    """Output vectors (of whole blocks) a group."""
    block = ctx.isa.block
    return -(-(conv.outputs // conv.groups) // block) * (block // ctx.isa.lanes(f32))
