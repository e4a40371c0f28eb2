"""Rows of resampling: nearest, linear and cubic of one and two dimensions, on blocked tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from torch_aio.ir.symbols import ceil_div, product
from torch_aio.kernels.resample import TAPS, Resample, TapTable
from torch_aio.plan.families.reorder import planes
from torch_aio.plan.families.windows import argument, has_batch
from torch_aio.plan.lowering import Group, Lowering
from torch_aio.plan.row import Row
from torch_aio.plan.value import Value

aten = torch.ops.aten
MODES: dict[str, str] = {
    "nearest": "nearest", "_nearest_exact": "exact", "linear": "linear", "bilinear": "linear",
    "trilinear": "linear", "bicubic": "cubic",
}  # fmt: skip


def tables(node: Node, rank: int) -> list[TapTable]:
    """How each spatial dimension is resampled."""
    kind = str(node.target).removeprefix("aten.").split(".")[0]
    name = kind.replace("upsample_", "").rstrip("0123d").rstrip("123")
    mode = MODES[name]
    position = 2 if TAPS[mode] == 1 else 3
    corners = bool(argument(node, 2, "align_corners", default=False)) if position == 3 else False
    if "vec" in str(node.target):
        scales = argument(node, position, "scale_factors", None) or [None] * rank
    else:
        names = ("scales_d", "scales_h", "scales_w")[3 - rank :] if rank > 1 else ("scales",)
        scales = [argument(node, position + n, name, None) for n, name in enumerate(names)]
    return [TapTable(mode, corners, None if s is None else float(s)) for s in scales]


def lower(ctx: Lowering, group: Group) -> None:
    """``upsample_*``: one step, a table for rows and one for columns."""
    node = group.output
    source = node.args[0]
    assert isinstance(source, Node)
    x, target = ctx.value(source), ctx.output(node)
    rules = tables(node, len(target.shape) - 2)
    resample(ctx, x, target, [TapTable(rules[0].mode), *rules][-2:])


def resample(ctx: Lowering, x: Value, target: Value, rules: Sequence[TapTable]) -> None:
    """The planes of a blocked value at another size; ``rules`` for rows and columns."""
    n, channels, height, width = planes(target.shape)
    before = planes(x.shape)[2:]
    down, across = (
        ctx.table(rule, have, want, step)
        for rule, have, want, step in zip(
            rules, before, (height, width), x.byte_stride[2:], strict=True
        )
    )
    blocks = ceil_div(channels, target.block)
    x_batch, x_block, _, _ = x.byte_stride
    y_batch, y_block, y_row, _ = target.byte_stride
    ctx.step(
        Resample(TAPS[rules[0].mode]), product((n, blocks, height)), ("y",),
        x=x, x_batch=x_batch, x_block=x_block, y=target, y_batch=y_batch, y_block=y_block,
        y_row=y_row, blocks=blocks, height=height, width=width, rows=down, columns=across,
    )  # fmt: skip


def accept(node: Node) -> str | None:
    """f32 with a batch; scales that are numbers."""
    refusal = has_batch(node)
    if refusal:
        return refusal
    scales: list[Any] = [*node.args[1:], *node.kwargs.values()]
    if any(isinstance(s, Node) and isinstance(s.meta.get("spec"), float) for s in scales):
        return "the scale to resample by changes between calls"
    return None


_NAMES = (
    "upsample_nearest1d", "upsample_nearest2d", "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d", "upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d",
)  # fmt: skip
ROWS: tuple[Row, ...] = tuple(
    Row(op, "resample", accept, lower, layout="blocked")
    for name in _NAMES
    for op in (getattr(aten, name).vec, getattr(aten, name).default)
)
