"""Convolutions of one and two dimensions, on channel-blocked tensors.

Four ways, by the groups: whole blocks (one group, or groups of whole channel blocks: direct, or by
Winograd), narrow (depthwise, and equal groups that fit a vector), repeated (depthwise with a
multiplier: the input's channels repeated, then depthwise), padded (any other groups: channels
spread over whole blocks, then convolved, then gathered again).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.fx import Node

from torch_aio.codegen.types import f32
from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import ceil_div, product
from torch_aio.kernels.blocked import ACCUMULATOR
from torch_aio.kernels.channels import GatherChannels
from torch_aio.kernels.depthwise import Depthwise
from torch_aio.kernels.pack_conv import ChannelTable, PackDepthwise
from torch_aio.plan.families import direct, direct_int8, winograd
from torch_aio.plan.families.channels import gather, gather_into
from torch_aio.plan.families.reorder import planes
from torch_aio.plan.families.windows import (
    Conv,
    Job,
    argument,
    blocked_temporary,
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
USUAL = 3
"""Ways that AIO_TUNE=fast tries: each packs the weights anew and compiles its kernels (the second
call of a ResNet-50 takes 2.6 s with six of them, 1.8 s with three)."""


def job_of(ctx: Lowering, group: Group, conv: Conv) -> Job:
    """The job of a group: bias and the chain behind it, memory for the result."""
    node = group.anchor
    assert node is not None
    weight = node.args[1]
    assert isinstance(weight, Node)
    trace = ChainTrace()
    trace.accumulator(node, torch.float32)
    bias = argument(node, 2, "bias", None)
    if bias is not None:
        trace.values[node] = trace.step("add", (trace.values[node], bias), torch.float32)
    target = ctx.output(group.output)
    chain, operands = ctx.epilogue(group, trace, channel=1)
    return Job(conv, weight, chain, operands, target)


def lower(ctx: Lowering, group: Group) -> None:
    """A convolution with bias and the chain behind it."""
    node = group.anchor
    assert node is not None
    source = node.args[0]
    assert isinstance(source, Node)
    conv, x, block = Conv.of(node), ctx.value(source), ctx.isa.block
    job = job_of(ctx, group, conv)
    inner, outer = conv.inputs // conv.groups, conv.outputs // conv.groups
    if conv.groups == 1 and x.block and is_int8(ctx, node):
        direct_int8.lower(ctx, job, x)
    elif inner == outer and ctx.isa.lanes(f32) % inner == 0 and conv.groups > 1:
        _narrow(ctx, job, x)
    elif conv.groups == 1 or (inner % block == 0 and outer % block == 0):
        whole_blocks(ctx, job, x)
    elif inner == 1:
        _narrow(ctx, job, gather(ctx, x, "repeat", conv.inputs, outer, conv.halo))
    else:
        _padded(ctx, job, x, inner, outer)


def is_int8(ctx: Lowering, node: Node) -> bool:
    """Whether a node that pass ``quantise`` marked runs in int8 here."""
    return bool(node.meta.get("int8")) and ctx.isa.dot is not None


def whole_blocks(ctx: Lowering, job: Job, x: Value) -> None:
    """Groups of whole channel blocks: direct or by Winograd, whichever is faster."""
    ways: dict[str, Callable[[], None]] = {}
    for outputs in winograd.candidates(ctx, job, x):
        if outputs:
            ways[f"winograd{outputs}"] = partial(winograd.lower, ctx, job, x, outputs)
        else:
            for tiles in direct.ways(ctx, job, x):
                ways[tiles.name] = partial(direct.lower, ctx, job, x, tiles)
    names = list(ways)
    ways[ctx.choose(_question(job, x), names[:USUAL], names[USUAL:])]()


def _question(job: Job, x: Value) -> str:
    """``conv 3x3 stride 1x1 64>64 @1x56x56 relu``: all that decides how fast a way is."""
    conv, (n, _, height, width) = job.conv, planes(job.target.shape)
    kernel, stride, dilation = (f"{h}x{w}" for h, w in (conv.kernel, conv.stride, conv.dilation))
    words = ["conv", kernel, f"stride {stride}", f"{conv.inputs}>{conv.outputs}"]
    words += [f"dilation {dilation}"] if dilation != "1x1" else []
    words += [f"groups {conv.groups}"] if conv.groups > 1 else []
    words += ["planar"] if not x.block else []
    return " ".join([*words, f"@{n}x{height}x{width}", job.chain.name]).rstrip()


def _narrow(ctx: Lowering, job: Job, x: Value) -> None:
    """Depthwise and narrow groups: output block b reads input block b."""
    conv, target = job.conv, job.target
    batch, block, row, _ = x.byte_stride
    n, channels, height, width = planes(target.shape)
    is_known = isinstance(width * height, int)
    rows = min(max(1, direct.SMALL_PLANE // width), height) if is_known else 8
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


def _padded(ctx: Lowering, job: Job, x: Value, inner: int, outer: int) -> None:
    """Each group spread over whole blocks, convolved so, and gathered with the epilogue."""
    conv, target, block = job.conv, job.target, ctx.isa.block
    wide_in, wide_out = -(-inner // block) * block, -(-outer // block) * block
    source = gather(ctx, x, "pad", conv.groups, inner, conv.halo)
    n, _, height, width = planes(target.shape)
    shape = (n, conv.groups * wide_out, height, width)
    between = blocked_temporary(ctx, shape, block, (0, 0), target)
    wide = replace(conv, inputs=conv.groups * wide_in, outputs=conv.groups * wide_out)
    whole_blocks(ctx, Job(wide, job.weight, ACCUMULATOR, [], between), source)
    table = ctx.table(ChannelTable("unpad", block), conv.groups, outer, between.byte_stride[1])
    spec = GatherChannels(1, bool(conv.outputs % block), job.chain)
    gather_into(ctx, spec, [between], table, target, job.operands)


# ---- rows ---------------------------------------------------------------------------------


def accept(node: Node) -> str | None:
    """f32, constant weight and bias, a batch, channels."""
    refusal = has_batch(node)
    if refusal:
        return refusal
    for name, position in (("weight", 1), ("bias", 2)):
        tensor = argument(node, position, name, None)
        if isinstance(tensor, Node) and not tensor.meta.get("constant"):
            return f"its {name} is not a constant"
    weight: TensorSpec = argument(node, 1, "weight", None).meta["spec"]
    return "the image has no channels" if 0 in weight.shape else None


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
)  # fmt: skip
