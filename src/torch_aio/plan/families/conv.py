"""Convolutions of one and two dimensions, on channel-blocked tensors.

Four ways, by the groups: direct (groups of whole blocks, or one group, blocked or planar input),
narrow (depthwise, and equal groups that fit a vector), repeated (depthwise with a multiplier: the
input's channels repeated, then depthwise), padded (any other groups: channels spread over whole
blocks, then direct, then gathered again).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import Node

from torch_aio.codegen.types import f32
from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Int, ceil_div, product
from torch_aio.kernels.blocked import ACCUMULATOR
from torch_aio.kernels.chain import Chain
from torch_aio.kernels.channels import GatherChannels
from torch_aio.kernels.conv import Conv as ConvSpec
from torch_aio.kernels.conv import tiles_for
from torch_aio.kernels.depthwise import Depthwise
from torch_aio.kernels.pack_conv import ChannelTable, PackConv, PackDepthwise, pixel_table
from torch_aio.kernels.reorder import PadPlanar
from torch_aio.plan.families.channels import gather, gather_into
from torch_aio.plan.families.reorder import plane_strides, planes
from torch_aio.plan.families.windows import (
    Conv,
    argument,
    blocked_temporary,
    full_values,
    has_batch,
    operand_arguments,
    origin,
    strides_of,
)
from torch_aio.plan.lowering import Group, Lowering
from torch_aio.plan.row import Row
from torch_aio.plan.trace import ChainTrace
from torch_aio.plan.value import Value

aten = torch.ops.aten
MOST_PLANAR = 4
"""Input channels up to which a convolution reads planar memory: a block would be padding mostly."""
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


@dataclass(frozen=True)
class _Job:
    """One convolution to lower: what it computes, its weight, its epilogue, its result."""

    conv: Conv
    weight: Node
    chain: Chain
    operands: list[Value]
    target: Value


def lower(ctx: Lowering, group: Group) -> None:
    """A convolution with bias and the chain behind it."""
    node = group.anchor
    assert node is not None
    source, weight = node.args[:2]
    assert isinstance(source, Node)
    assert isinstance(weight, Node)
    trace = ChainTrace()
    trace.accumulator(node, torch.float32)
    bias = argument(node, 2, "bias", None)
    if bias is not None:
        trace.values[node] = trace.step("add", (trace.values[node], bias), torch.float32)
    target = ctx.output(group.output)
    chain, operands = ctx.epilogue(group, trace, channel=1)
    conv, x, block = Conv.of(node), ctx.value(source), ctx.isa.block
    job = _Job(conv, weight, chain, operands, target)
    inner, outer = conv.inputs // conv.groups, conv.outputs // conv.groups
    if inner == outer and ctx.isa.lanes(f32) % inner == 0 and conv.groups > 1:
        _narrow(ctx, job, x)
    elif conv.groups == 1 or (inner % block == 0 and outer % block == 0):
        _direct(ctx, job, x)
    elif inner == 1:
        _narrow(ctx, job, gather(ctx, x, "repeat", conv.inputs, outer, conv.halo))
    else:
        _padded(ctx, job, x, inner, outer)


def _direct(ctx: Lowering, job: _Job, x: Value) -> None:
    conv, target = job.conv, job.target
    if x.block:
        strides, columns = x.byte_stride, 0
    else:
        x, strides = _planar(ctx, x, conv)
        columns = max(n for n in range(1, MOST_COLUMNS + 1) if conv.kernel[1] % n == 0)
    lanes, block = ctx.isa.lanes(f32), ctx.isa.block
    inner, outer = conv.inputs // conv.groups, conv.outputs // conv.groups
    vectors = -(-outer // block) * (block // lanes)
    tiles = {f"direct {p}x{v}": (p, v) for p, v in tiles_for(ctx.isa, vectors)}
    tile = tiles[ctx.choose(_question(job, columns), list(tiles))]
    c_in = 1 if columns else block
    n, _, height, width = planes(target.shape)
    merged = isinstance(height * width, int) and height * width < SMALL_PLANE
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


def _question(job: _Job, columns: int) -> str:
    """``conv 3x3 stride 1x1 64>64 @1x56x56 relu``: all that decides how fast a way is."""
    conv, (n, _, height, width) = job.conv, planes(job.target.shape)
    kernel, stride, dilation = (f"{h}x{w}" for h, w in (conv.kernel, conv.stride, conv.dilation))
    words = ["conv", kernel, f"stride {stride}", f"{conv.inputs}>{conv.outputs}"]
    words += [f"dilation {dilation}"] if dilation != "1x1" else []
    words += [f"groups {conv.groups}"] if conv.groups > 1 else []
    words += ["planar"] if columns else []
    return " ".join([*words, f"@{n}x{height}x{width}", job.chain.name]).rstrip()


def _pixel_table(
    ctx: Lowering, job: _Job, strides: tuple[Int, ...], tile: int, images: Int
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


def _narrow(ctx: Lowering, job: _Job, x: Value) -> None:
    """Depthwise and narrow groups: output block b reads input block b."""
    conv, target = job.conv, job.target
    batch, block, row, _ = x.byte_stride
    n, channels, height, width = planes(target.shape)
    rows = min(max(1, SMALL_PLANE // width), height) if isinstance(width * height, int) else 8
    spec = Depthwise(conv.kernel, conv.stride[1], conv.dilation[1], conv.inputs // conv.groups,
                     bool(conv.outputs % target.block), job.chain)  # fmt: skip
    ctx.step(
        spec,
        product((n, ceil_div(channels, target.block), ceil_div(height, rows))),
        ("y",),
        x=origin(x, conv.padding, x.byte_stride), x_batch=batch, x_block=block,
        row_step=conv.stride[0] * row, tap_step=conv.dilation[0] * row,
        w=ctx.constant(job.weight, PackDepthwise(target.block)),
        y=target, **strides_of("y", target),
        channels=channels, height=height, width=width, rows=rows,
        **operand_arguments(job.chain, job.operands, n, rows=True),
    )  # fmt: skip


def _padded(ctx: Lowering, job: _Job, x: Value, inner: int, outer: int) -> None:
    """Each group spread over whole blocks, convolved so, and gathered with the epilogue."""
    conv, target, block = job.conv, job.target, ctx.isa.block
    wide_in, wide_out = -(-inner // block) * block, -(-outer // block) * block
    source = gather(ctx, x, "pad", conv.groups, inner, conv.halo)
    n, _, height, width = planes(target.shape)
    shape = (n, conv.groups * wide_out, height, width)
    between = blocked_temporary(ctx, shape, block, (0, 0), target)
    wide = replace(conv, inputs=conv.groups * wide_in, outputs=conv.groups * wide_out)
    _direct(ctx, _Job(wide, job.weight, ACCUMULATOR, [], between), source)
    table = ctx.table(ChannelTable("unpad", block), conv.groups, outer, between.byte_stride[1])
    spec = GatherChannels(bool(conv.outputs % block), job.chain)
    gather_into(ctx, spec, between, table, target, job.operands)


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


# ---- rows ---------------------------------------------------------------------------------


def accept(node: Node) -> str | None:
    """f32, constant weight and bias, a batch."""
    refusal = has_batch(node)
    if refusal:
        return refusal
    for name, position in (("weight", 1), ("bias", 2)):
        tensor = argument(node, position, name, None)
        if isinstance(tensor, Node) and not tensor.meta.get("constant"):
            return f"its {name} is not a constant"
    return None


def accept_convolution(node: Node) -> str | None:
    """Transposed convolutions: normalise spells the others conv1d and conv2d."""
    return "transposed convolution has no kernel yet"


def planar(node: Node) -> bool:
    """Whether the input is read as it is: few channels, as in a first layer."""
    conv = Conv.of(node)
    return conv.groups == 1 and conv.inputs <= MOST_PLANAR


def halo(node: Node) -> tuple[int, int] | None:
    """The zeros that the kernel reads around the planes of its input."""
    conv = Conv.of(node)
    inner, outer = conv.inputs // conv.groups, conv.outputs // conv.groups
    is_copied = conv.groups > 1 and inner != outer and inner == 1
    if planar(node) or is_copied or conv.halo == (0, 0):
        return None
    return conv.halo


def flops(node: Node) -> Any:
    """Multiply-adds times two."""
    spec: TensorSpec = node.meta["spec"]
    return product((spec.shape[0], *spec.shape[2:])) * Conv.of(node).flops


ROWS: tuple[Row, ...] = (
    *(
        Row(op, "conv", accept, lower, epilogue=True, layout="blocked", planar=planar, halo=halo,
            flops=flops)
        for op in (
            aten.conv1d.default, aten.conv2d.default, aten.conv1d.padding, aten.conv2d.padding,
        )
    ),
    Row(aten.convolution.default, "conv", accept_convolution, lower),
)  # fmt: skip
