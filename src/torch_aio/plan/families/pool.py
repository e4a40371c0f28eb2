"""Pooling of one and two dimensions, on channel-blocked tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from torch_aio.ir.symbols import ceil_div, product
from torch_aio.kernels.pool import MOST_COLUMNS, AdaptiveAvgPool, Pool
from torch_aio.plan.families.reorder import planes
from torch_aio.plan.families.windows import Pair, argument, has_batch, pair, strides_of
from torch_aio.plan.lowering import Group, Lowering
from torch_aio.plan.row import Row
from torch_aio.plan.value import Argument, Value

aten = torch.ops.aten


def lower_max(ctx: Lowering, group: Group) -> None:
    """``max_pool1d`` and ``max_pool2d`` (without indices)."""
    node = group.output
    window = [_pair(node, 1, "kernel_size"), _stride(node), _pair(node, 3, "padding", 0),
              _pair(node, 4, "dilation", 1)]  # fmt: skip
    emit(ctx, _source(ctx, node), ctx.output(node), "max", window, include_pad=0, divisor=0)


def lower_avg(ctx: Lowering, group: Group) -> None:
    """``avg_pool1d`` and ``avg_pool2d``."""
    node = group.output
    window = [_pair(node, 1, "kernel_size"), _stride(node), _pair(node, 3, "padding", 0), (1, 1)]
    include = int(argument(node, 5, "count_include_pad", default=True))
    divisor = argument(node, 6, "divisor_override", None) or 0
    emit(ctx, _source(ctx, node), ctx.output(node), "avg", window,
         include_pad=include, divisor=divisor)  # fmt: skip


def lower_adaptive(ctx: Lowering, group: Group) -> None:
    """``adaptive_avg_pool1d`` and ``adaptive_avg_pool2d``."""
    emit_adaptive(ctx, _source(ctx, group.output), ctx.output(group.output))


def emit_adaptive(ctx: Lowering, x: Value, target: Value) -> None:
    """The step of an adaptive average."""
    ctx.step(AdaptiveAvgPool(), _units(target), ("y",), **_planes_of(x, target))


def emit(
    ctx: Lowering, x: Value, target: Value, kind: Any, window: Sequence[Pair], **options: int
) -> None:
    """The step of a window: (rows, columns) of kernel, stride, padding and dilation."""
    kernel, stride, padding, dilation = window
    if kernel[1] <= MOST_COLUMNS:
        spec = Pool(kind, kernel[1], stride[1], dilation[1])
    else:
        spec = Pool(kind)
    ctx.step(
        spec,
        _units(target),
        ("y",),
        **_planes_of(x, target),
        kernel_h=kernel[0], kernel_w=kernel[1], stride_h=stride[0], stride_w=stride[1],
        pad_h=padding[0], pad_w=padding[1], dilation_h=dilation[0], dilation_w=dilation[1],
        **options,
    )  # fmt: skip


def _planes_of(x: Value, y: Value) -> dict[str, Argument]:
    _, channels, in_height, in_width = planes(x.shape)
    _, _, height, width = planes(y.shape)
    return {
        "x": x, **strides_of("x", x), "y": y, **strides_of("y", y),
        "blocks": ceil_div(channels, x.block), "in_height": in_height, "in_width": in_width,
        "height": height, "width": width,
    }  # fmt: skip


def _units(target: Value) -> Any:
    n, channels, height, _ = planes(target.shape)
    return product((n, ceil_div(channels, target.block), height))


def _source(ctx: Lowering, node: Node) -> Value:
    source = node.args[0]
    assert isinstance(source, Node)
    return ctx.value(source)


def _pair(node: Node, position: int, name: str, default: Any = None) -> tuple[int, int]:
    """(rows, columns) of an argument; one number goes for all dimensions."""
    value = argument(node, position, name, default)
    rank = 1 if "1d" in str(node.target) else 2
    values = (value,) if isinstance(value, int) else tuple(value)
    return pair(values * rank if len(values) == 1 else values, 0 if name == "padding" else 1)


def _stride(node: Node) -> tuple[int, int]:
    given = argument(node, 2, "stride", ())
    return _pair(node, 1, "kernel_size") if given in ((), [], None) else _pair(node, 2, "stride")


ROWS: tuple[Row, ...] = (
    *(
        Row(op, "pool", has_batch, lower_max, layout="blocked")
        for op in (aten.max_pool1d.default, aten.max_pool2d.default)
    ),
    *(
        Row(op, "pool", has_batch, lower_avg, layout="blocked")
        for op in (aten.avg_pool1d.default, aten.avg_pool2d.default)
    ),
    *(
        Row(op, "pool", has_batch, lower_adaptive, layout="blocked")
        for op in (aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default)
    ),
)
