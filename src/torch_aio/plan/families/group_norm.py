"""The row of group normalisation, of plain tensors and of blocked ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.fx import Node

from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Int, ceil_div, product
from torch_aio.kernels.chain import Chain, Const, Input, Step
from torch_aio.kernels.image_norm import NormScales, PartMoments
from torch_aio.kernels.norm import GroupNormSpec
from torch_aio.kernels.pack_conv import PackChannels
from torch_aio.plan.channels import channel_lanes
from torch_aio.plan.families.copies import apply, contiguous, copy
from torch_aio.plan.families.fused import apply_masked
from torch_aio.plan.families.reorder import planes
from torch_aio.plan.families.windows import full_values
from torch_aio.plan.lowering import Group, Lowering
from torch_aio.plan.row import Row
from torch_aio.plan.trace import ChainTrace
from torch_aio.plan.value import Argument, Value

aten = torch.ops.aten
PART = 256
"""Pixels a part of a plane has, of 64 bytes: half an L1 cache."""


def _arguments(node: Node) -> tuple[Any, Any, float]:
    """Weight, bias and eps."""
    given: list[Any] = [*node.args, *(None,) * (6 - len(node.args))]
    weight, bias = (
        given[i] if given[i] is not None else node.kwargs.get(name)
        for i, name in ((2, "weight"), (3, "bias"))
    )
    eps: Any = given[4] if given[4] is not None else node.kwargs.get("eps", 1e-5)
    return weight, bias, float(eps)


def lower(ctx: Lowering, group: Group) -> None:
    """``group_norm(x, groups, weight, bias, eps)`` and the chain behind it."""
    node = group.anchor
    assert node is not None
    trace = ChainTrace()
    trace.accumulator(node, torch.float32)
    target = ctx.output(group.output)
    chain, operands = ctx.epilogue(group, trace, channel=1)
    if target.block:
        _lower_blocked(ctx, node, target, chain, operands)
    else:
        _lower_plain(ctx, node, target, chain, operands)


def _lower_plain(
    ctx: Lowering, node: Node, target: Value, chain: Chain, operands: list[Value]
) -> None:
    source: Any = node.args[0]
    groups: Any = node.args[1]
    weight, bias, eps = _arguments(node)
    x = contiguous(ctx, ctx.value(source))
    n, channels, *plane = x.shape
    is_whole = target.is_contiguous and not chain.steps
    y = target if is_whole else ctx.temporary(target.shape, torch.float32)
    parameters: dict[str, Argument] = {
        name: contiguous(ctx, ctx.value(value))
        for name, value in (("weight", weight), ("bias", bias))
        if value is not None
    }
    ctx.step(
        GroupNormSpec(weight is not None, bias is not None), n * groups, ("y",),
        plane=product(tuple(plane)), channels=channels // groups, groups=groups,
        eps=eps, x=x, y=y, **parameters,
    )  # fmt: skip
    if chain.steps:
        apply(ctx, chain, [y, *operands], target)
    elif y is not target:
        copy(ctx, y, target)


def _lower_blocked(
    ctx: Lowering, node: Node, target: Value, chain: Chain, operands: list[Value]
) -> None:
    """Moments of parts of planes, of groups, then (x - mean) * scale + bias and the chain."""
    source: Any = node.args[0]
    weight, bias, eps = _arguments(node)
    x = ctx.value(source)
    shape = source.meta["spec"].shape
    samples, images = shape[0], shape[2] if len(shape) == 5 else 1
    groups: Any = node.args[1]
    means, scales = _moments(ctx, x, (samples, images), (groups, eps), weight)
    chain = _normalised(chain, has_bias=bias is not None)
    if bias is not None:
        lanes = ctx.constant(bias, PackChannels(x.block))
        operands = [channel_lanes(lanes, x.shape[1], x.block), *operands]
    full = [any(v is f for f in full_values(chain, [means, scales, *operands])) for v in operands]
    runs = _samples(samples, images)
    by_sample = [
        [v] if len(runs) == 1 else [images_of(v, n, 1) for n in range(len(runs))]
        for v in (means, scales)
    ]
    for n, (first, count) in enumerate(runs):
        parts = [
            images_of(value, first, count) if is_full else value
            for value, is_full in zip(operands, full, strict=True)
        ]
        seen = [images_of(x, first, count), *(rows[n] for rows in by_sample), *parts]
        apply_masked(ctx, chain, seen, images_of(target, first, count))


def _samples(samples: Int, images: Int) -> list[tuple[Int, Int]]:
    """(first, count) of the images that share operands by channel; count 0: all."""
    if isinstance(images, int) and images == 1:
        return [(0, 0)]
    return [(n * images, images) for n in range(int(samples))]  # type: ignore[arg-type]


def images_of(value: Value, first: Int, count: Int) -> Value:
    """``count`` images of a blocked value from ``first`` on (0: all)."""
    if isinstance(count, int) and not count:
        return value
    offset = value.offset + first * value.byte_stride[0]
    return replace(value, shape=(count, *value.shape[1:]), offset=offset)


def _normalised(chain: Chain, *, has_bias: bool) -> Chain:
    """The chain of (x - mean) * scale [+ bias]; inputs x, mean, scale, [bias,] then its own."""
    extra = (Input("f32", "channel"),) * (3 if has_bias else 2)
    count, more = len(chain.inputs), len(extra)
    inputs = (chain.inputs[0], *extra, *chain.inputs[1:])
    at = count + more
    steps = [Step("sub", (0, 1), "f32"), Step("mul", (at, 2), "f32")]
    steps += [Step("add", (at + 1, 3), "f32")] if has_bias else []
    last = at + len(steps) - 1

    def moved(arg: int | Const) -> int | Const:
        if isinstance(arg, Const):
            return arg
        if arg == 0:
            return last
        return arg + more if arg < count else arg + more + len(steps)

    rest = [Step(s.op, tuple(moved(a) for a in s.args), s.dtype) for s in chain.steps]
    return Chain(inputs, (*steps, *rest))


def _moments(
    ctx: Lowering, x: Value, stack: tuple[Int, Int], norm: tuple[int, float], weight: Node | None
) -> tuple[Value, Value]:
    """Means and scales, a value for each channel of each sample."""
    (samples, images), (groups, eps) = stack, norm
    all_images, channels, height, width = planes(x.shape)
    blocks = ceil_div(channels, x.block)
    known = isinstance(width, int)
    rows = max(1, PART // max(width, 1)) if known else 1
    count = ceil_div(height, rows)
    parts = ctx.temporary((all_images, blocks, count, 2, x.block), torch.float32, "parts")
    batch, block, row, _ = x.byte_stride
    common: dict[str, Argument] = {
        "parts": parts, "blocks": blocks, "height": height, "width": width, "rows": rows,
        "count": count,
    }  # fmt: skip
    ctx.step(
        PartMoments(), product((all_images, blocks, count)), ("parts",),
        x=x, x_batch=batch, x_block=block, x_row=row, **common,
    )  # fmt: skip
    found = [
        ctx.temporary((samples, blocks * x.block), torch.float32, name)
        for name in ("means", "scales")
    ]
    given = {} if weight is None else {"weight": contiguous(ctx, ctx.value(weight))}
    ctx.step(
        NormScales(weight is not None), samples * groups, ("means", "scales"),
        **common, images=images, group=channels // groups, groups=groups,
        stride=blocks * x.block * 4, eps=eps, means=found[0], scales=found[1], **given,
    )  # fmt: skip
    shape, stride = (samples, channels, 1, 1), (blocks * x.block, x.block, 0, 0)
    means, scales = (replace(v, shape=shape, stride=stride, block=x.block) for v in found)
    return means, scales


def wants_blocked(node: Node) -> bool:
    """Blocked where its input is, and where the samples of volumes are known."""
    source: Any = node.args[0]
    spec: TensorSpec = node.meta["spec"]
    if source.meta.get("layout") != "blocked" or spec.ndim not in (3, 4, 5):
        return False
    weight, bias, _ = _arguments(node)
    constant = all(v is None or v.meta.get("constant") for v in (weight, bias))
    return constant and (spec.ndim < 5 or isinstance(spec.shape[0], int))


def accept(node: Node) -> str | None:
    """f32 throughout."""
    for tensor in (node, *node.all_input_nodes):
        spec: TensorSpec = tensor.meta["spec"]
        if spec.dtype != torch.float32:
            return f"group norm of {str(spec.dtype).removeprefix('torch.')} has no kernel"
    return None


ROWS: tuple[Row, ...] = (
    Row(
        aten.group_norm.default, "norm", accept, lower, epilogue=True, layout="blocked",
        wants_blocked=wants_blocked,
    ),
)  # fmt: skip
