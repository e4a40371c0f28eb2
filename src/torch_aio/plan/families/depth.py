"""Pooling and resampling of three dimensions: image by image as of two, then along depth.

Both are separable, averages with their counts too (a count is a product of counts a dimension).
Along depth every output image is a chain of whole input images; outputs that see as many, evenly,
are one step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch.fx import Node

from torch_aio.ir.spec import TensorSpec
from torch_aio.kernels.chain import Chain, Const, Input, Step
from torch_aio.kernels.resample import TAPS, TapTable
from torch_aio.plan.families import images, pool, resample
from torch_aio.plan.families.copies import apply
from torch_aio.plan.families.images import Stack
from torch_aio.plan.families.reorder import planes
from torch_aio.plan.families.windows import argument, blocked_temporary, has_batch
from torch_aio.plan.lowering import Group, Lowering
from torch_aio.plan.row import Row
from torch_aio.plan.value import Value

aten = torch.ops.aten
MOST = 6
"""Images that one step reads."""


@dataclass(frozen=True)
class Taps:
    """The input images of one output image, and what becomes of them.

    ``weights``: a factor each (None: 1); ``count``: what their sum is divided by, 0 for the
    largest.
    """

    images: tuple[int, ...]
    weights: tuple[float, ...] | None = None
    count: int = 1


def lower_max(ctx: Lowering, group: Group) -> None:
    """``max_pool3d`` (without indices)."""
    node = group.output
    kernel, stride, padding = _windows(node)
    dilation = _triple(argument(node, 4, "dilation", 1))
    x, between, target = _stacks(ctx, node)
    windows = [w[1:] for w in (kernel, stride, padding, dilation)]
    pool.emit(ctx, x.value, between.value, "max", windows, include_pad=0, divisor=0)
    size = int(x.depth)  # type: ignore[arg-type]
    along = [
        [at for t in range(kernel[0]) if 0 <= (at := first + t * dilation[0]) < size]
        for first in range(-padding[0], int(target.depth) * stride[0] - padding[0], stride[0])  # type: ignore[arg-type]
    ]
    along_depth(ctx, between, target, [Taps(tuple(seen), count=0) for seen in along])


def lower_avg(ctx: Lowering, group: Group) -> None:
    """``avg_pool3d``."""
    node = group.output
    kernel, stride, padding = _windows(node)
    x, between, target = _stacks(ctx, node)
    include = bool(argument(node, 5, "count_include_pad", default=True))
    divisor = argument(node, 6, "divisor_override", None)
    windows = [*(w[1:] for w in (kernel, stride, padding)), (1, 1)]
    pool.emit(ctx, x.value, between.value, "avg", windows,
              include_pad=int(include), divisor=1 if divisor else 0)  # fmt: skip
    size, found = int(x.depth), []  # type: ignore[arg-type]
    for q in range(int(target.depth)):  # type: ignore[arg-type]
        first = q * stride[0] - padding[0]
        last = min(first + kernel[0], size + padding[0])
        seen = tuple(range(max(first, 0), min(last, size)))
        count = last - first if include else max(len(seen), 1)
        found.append(Taps(seen, count=divisor or count))
    along_depth(ctx, between, target, found)


def lower_adaptive(ctx: Lowering, group: Group) -> None:
    """``adaptive_avg_pool3d``."""
    x, between, target = _stacks(ctx, group.output)
    pool.emit_adaptive(ctx, x.value, between.value)
    size, count = int(x.depth), int(target.depth)  # type: ignore[arg-type]
    bounds = [(q * size // count, -(-(q + 1) * size // count)) for q in range(count)]
    along_depth(ctx, between, target, [Taps(tuple(range(a, b)), count=b - a) for a, b in bounds])


def lower_resample(ctx: Lowering, group: Group) -> None:
    """``upsample_nearest3d``, ``upsample_trilinear3d``."""
    node = group.output
    x, between, target = _stacks(ctx, node)
    depth, *rules = resample.tables(node, 3)
    resample.resample(ctx, x.value, between.value, rules)
    along_depth(ctx, between, target, _resampled(depth, x, target))


def _resampled(rule: TapTable, x: Stack, target: Stack) -> list[Taps]:
    table = rule(int(x.depth), int(target.depth), 1)  # type: ignore[arg-type]
    taps = TAPS[rule.mode]
    if taps == 1:
        return [Taps((int(row[0]),)) for row in table]
    places, weights = table[:, :taps], table[:, taps:].copy().view("float32")
    return [
        Taps(tuple(map(int, at)), tuple(map(float, weight)))
        for at, weight in zip(places, weights, strict=True)
    ]


# ---- along depth --------------------------------------------------------------------------


def along_depth(ctx: Lowering, source: Stack, target: Stack, taps: Sequence[Taps]) -> None:
    """Every output image from the input images that ``taps`` names."""
    start = 0
    for stop in range(1, len(taps) + 1):
        if stop < len(taps) and _continues(taps[start : stop + 1]):
            continue
        part = taps[start:stop]
        step = part[1].images[0] - part[0].images[0] if len(part) > 1 else 1
        seen = [source.plain(i, len(part), step) for i in part[0].images]
        _combine(ctx, seen, part[0], target.plain(start, len(part)))
        start = stop


def _continues(part: Sequence[Taps]) -> bool:
    """Whether outputs see alike and their images lie evenly."""
    first = part[0]
    alike = all(
        (len(t.images), t.weights, t.count) == (len(first.images), first.weights, first.count)
        for t in part
    )
    if not alike:
        return False
    steps = {tuple(b - a for a, b in zip(one.images, two.images, strict=True))
             for one, two in pairwise(part)}  # fmt: skip
    return len(steps) == 1 and len(set(next(iter(steps)))) <= 1


def _combine(ctx: Lowering, seen: list[Value], taps: Taps, target: Value) -> None:
    """One step, or several with parts between where there are many images."""
    count = taps.count
    op = "add" if count else "max"
    while len(seen) > MOST:
        parts = []
        for n in range(0, len(seen), MOST):
            part = ctx.temporary(target.shape, target.dtype, "part")
            apply(ctx, _chain(op, seen[n : n + MOST], None, 1), seen[n : n + MOST], part)
            parts.append(part)
        seen = parts
    apply(ctx, _chain(op, seen, taps.weights, max(count, 1)), seen, target)


def _chain(op: str, seen: Sequence[Value], weights: Sequence[float] | None, count: int) -> Chain:
    """``op`` over all inputs, each times its weight, divided by ``count``."""
    steps: list[Step] = []
    values = list(range(len(seen)))

    def add(name: str, *args: Any) -> int:
        steps.append(Step(name, args, "f32"))
        return len(seen) + len(steps) - 1

    if weights is not None:
        values = [add("mul", v, Const(w)) for v, w in zip(values, weights, strict=True)]
    total = values[0]
    for value in values[1:]:
        total = add(op, total, value)
    if count != 1:
        add("div", total, Const(count))
    return Chain((Input("f32", "full"),) * len(seen), tuple(steps))


# ---- operands and rows --------------------------------------------------------------------


def _stacks(ctx: Lowering, node: Node) -> tuple[Stack, Stack, Stack]:
    """The source, memory for its images at the result's size, the result."""
    source: Any = node.args[0]
    x = images.stack(source, ctx.value(source))
    target = images.stack(node, ctx.output(node))
    _, channels, height, width = planes(target.value.shape)
    shape = (x.samples * x.depth, channels, height, width)
    value = blocked_temporary(ctx, shape, x.value.block, (0, 0), x.value)
    return x, Stack(value, x.samples, x.depth, x.depth * value.stride[0]), target


def _windows(node: Node) -> tuple[Any, Any, Any]:
    """Kernel, stride and padding of all three dimensions."""
    kernel = _triple(argument(node, 1, "kernel_size", None))
    given = argument(node, 2, "stride", ())
    stride = kernel if given in ((), [], None) else _triple(given)
    return kernel, stride, _triple(argument(node, 3, "padding", 0))


def _triple(value: Any) -> tuple[int, int, int]:
    values = (value,) if isinstance(value, int) else tuple(value)
    depth, rows, columns = values * 3 if len(values) == 1 else values
    return depth, rows, columns


def accept(node: Node) -> str | None:
    """f32 with a batch, as many images as the plan knows."""
    refusal = has_batch(node)
    if refusal:
        return refusal
    channels = node.meta["spec"].shape[1]
    if isinstance(channels, int) and channels == 1:
        return "in blocks of channels a volume of one channel is mostly padding"
    for tensor in (node, node.args[0]):
        spec: TensorSpec = tensor.meta["spec"]  # type: ignore[union-attr]
        if not isinstance(spec.shape[2], int):
            return "the depth of its images is not known"
    return None


_RESAMPLED = ("upsample_nearest3d", "_upsample_nearest_exact3d", "upsample_trilinear3d")
ROWS: tuple[Row, ...] = (
    Row(aten.max_pool3d.default, "pool", accept, lower_max, layout="blocked"),
    Row(aten.avg_pool3d.default, "pool", accept, lower_avg, layout="blocked"),
    Row(aten.adaptive_avg_pool3d.default, "pool", accept, lower_adaptive, layout="blocked"),
    *(
        Row(op, "resample", accept, lower_resample, layout="blocked")
        for name in _RESAMPLED
        for op in (getattr(aten, name).vec, getattr(aten, name).default)
    ),
)
