"""Direct convolutions in int8: the input's bytes, then ``ConvInt8`` tile by tile as in fp32."""

from __future__ import annotations

from dataclasses import replace

import torch

from torch_aio.codegen.types import f32
from torch_aio.ir.symbols import Int, ceil_div, product
from torch_aio.kernels.conv import OVERREAD
from torch_aio.kernels.conv_int8 import ConvInt8, PackConvInt8
from torch_aio.kernels.quantise_images import (
    INFO,
    KINDS,
    ImageLevels,
    QuantiseImages,
    RowExtremes,
)
from torch_aio.plan.families.direct import STREAMED, TILES_A_BLOCK, splits_panels, weight_bytes
from torch_aio.plan.families.reorder import planes
from torch_aio.plan.families.tiling import Tiles, tilings
from torch_aio.plan.families.windows import Job, operand_arguments, origin, strides_of
from torch_aio.plan.lowering import Lowering
from torch_aio.plan.value import Value


def lower(ctx: Lowering, job: Job, x: Value) -> None:
    """Quantise a blocked x and convolve it; one group."""
    conv, target, block = job.conv, job.target, ctx.isa.block
    q, info = _quantised(ctx, job, x)
    tiles = _tiles(ctx, job, q)
    n, _, height, width = planes(target.shape)
    count, vectors = tiles.count(height * width), job.vectors(ctx.isa)
    panels, strides = -(-vectors // tiles.tile[1]), q.byte_stride
    spec = ConvInt8(tiles.tile, step=tiles.step, masked=bool(conv.outputs % block), chain=job.chain)
    blocks = -(-conv.inputs // block)
    panels_a_unit = 1 if splits_panels(conv, x, target, count) else panels
    ctx.step(
        spec, -(-panels // panels_a_unit) * n * count, ("y",),
        info=info, x=origin(q, conv.padding, strides), x_batch=strides[0], x_block=strides[1],
        tap_row=conv.dilation[0] * strides[2], tap_column=conv.dilation[1] * strides[3],
        w=ctx.constant(job.weight, PackConvInt8(block, tiles.tile[1] * ctx.isa.lanes(f32))),
        y=target, y_batch=target.byte_stride[0], y_block=target.byte_stride[1],
        table=tiles.table(ctx, job, 1, strides), batch=n, pixels=count * tiles.tile[0],
        channels=conv.outputs, groups=1, in_blocks=blocks, last_terms=block // 4,
        out_vectors=vectors, kernel_h=conv.kernel[0], kernel_w=conv.kernel[1], chunk=blocks,
        panels_a_unit=panels_a_unit, tiles_a_block=TILES_A_BLOCK,
        prefetch=int(weight_bytes(conv) // 4 >= STREAMED),
        **operand_arguments(job.chain, job.operands, n, rows=False),
    )  # fmt: skip


def _tiles(ctx: Lowering, job: Job, q: Value) -> Tiles:
    """The best guess of those whose sums stay in registers."""
    assert ctx.isa.dot is not None, ctx.isa.name
    most = ctx.isa.dot.sums
    found = tilings(ctx.isa, job, q, job.vectors(ctx.isa), is_whole=True)
    fitting = [tiles for tiles in found if tiles.tile[0] * tiles.tile[1] <= most]
    return fitting[0] if fitting else Tiles((most // 2, 2))


def _quantised(ctx: Lowering, job: Job, x: Value) -> tuple[Value, Value]:
    """Bytes of x in blocks, framed for the convolution's padding, and what is known of images."""
    conv, block = job.conv, x.block
    n, channels, height, width = planes(x.shape)
    (top, left), (bottom, right) = conv.padding, conv.halo
    blocks = ceil_div(channels, block)
    found = ctx.temporary((n, KINDS, blocks * height), torch.float32, "extremes")
    info = ctx.temporary((n, INFO), torch.float32, "scales")
    elements = width * block
    images, per_block, row, _ = x.byte_stride
    source = {"x": x, "x_batch": images, "x_block": per_block, "x_row": row}
    ctx.step(
        RowExtremes(), product((n, blocks, height)), ("found",), **source, found=found,
        blocks=blocks, height=height, elements=elements,
    )  # fmt: skip
    ctx.step(ImageLevels(), n, ("info",), found=found, info=info, count=blocks * height)
    q = _framed(ctx, (n, blocks, height + top + bottom, width + left + right), block)
    ctx.step(
        QuantiseImages(), product((n, blocks, height + top + bottom)), ("q",), **source, info=info,
        q=q, **strides_of("q", q), blocks=blocks, rows=height + top + bottom, top=top,
        height=height, left=left * block, right=right * block, elements=elements,
    )  # fmt: skip
    inside = top * q.stride[2] + left * q.stride[3]
    return replace(q, shape=x.shape, offset=inside), info


def _framed(ctx: Lowering, shape: tuple[Int, Int, Int, Int], block: int) -> Value:
    """Memory for blocked bytes, with what tiles read past its end."""
    n, blocks, height, width = shape
    row = width * block
    area = height * row
    memory = ctx.temporary((product((n, blocks, area)) + OVERREAD * block,), torch.int8, "bytes")
    stride = (blocks * area, area, row, block)
    return Value(memory.buffer, (n, blocks * block, height, width), torch.int8, stride, 0, block)
