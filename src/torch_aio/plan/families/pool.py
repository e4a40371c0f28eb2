"""Rows of pooling: windows over channel-blocked planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Int, ceil_div
from torch_aio.kernels.pool import MOST_COLUMNS, AdaptiveAvgPool, Pool
from torch_aio.plan.families.reorder import planes
from torch_aio.plan.lowering import Group, Lowering
from torch_aio.plan.row import Row
from torch_aio.plan.value import Argument, Value

aten = torch.ops.aten
ADAPTIVE = (aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default)
MAXIMUM = (aten.max_pool1d.default, aten.max_pool2d.default)


@dataclass(frozen=True)
class Window:
    """A pooling window: (rows, columns) of everything; one-dimensional pooling has one row."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    include_pad: bool = True
    divisor: int = 0


def window(node: Node) -> Window:
    """The window of a max or average pooling node."""
    names = ("kernel_size", "stride", "padding")
    is_max = node.target in MAXIMUM
    names += ("dilation", "ceil_mode") if is_max else ("ceil_mode", "count_include_pad", "divisor_override")  # fmt: skip
    defaults: dict[str, Any] = {"stride": (), "padding": 0, "dilation": 1, "count_include_pad": True}
    given = dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)
    read = {name: given.get(name, defaults.get(name)) for name in names}
    spec: TensorSpec = node.meta["spec"]
    kernel = _pair(read["kernel_size"], spec, 1)
    stride = _pair(read["stride"], spec, 1) if read["stride"] not in ((), [], None) else kernel
    return Window(
        kernel,
        stride,
        _pair(read["padding"], spec, 0),
        _pair(read.get("dilation", 1), spec, 1),
        bool(read.get("count_include_pad", True)),
        int(read.get("divisor_override") or 0),
    )


def lower_window(ctx: Lowering, group: Group) -> None:
    """Max and average pooling."""
    node = group.output
    x, y = ctx.value(node.args[0]), ctx.output(node)  # type: ignore[arg-type]
    w = window(node)
    baked = w.kernel[1] if w.kernel[1] <= MOST_COLUMNS else 0
    kind = "max" if node.target in MAXIMUM else "avg"
    spec = Pool(kind, baked, w.stride[1] if baked else 1, w.dilation[1] if baked else 1)  # type: ignore[arg-type]
    arguments: dict[str, Argument] = {}
    for name, pair in (
        ("kernel", w.kernel), ("stride", w.stride), ("pad", w.padding), ("dilation", w.dilation)
    ):  # fmt: skip
        arguments |= {f"{name}_h": pair[0], f"{name}_w": pair[1]}
    arguments |= {"include_pad": int(w.include_pad), "divisor": w.divisor}
    _emit(ctx, spec, x, y, arguments)


def lower_adaptive(ctx: Lowering, group: Group) -> None:
    """Adaptive average pooling, and the mean over whole planes."""
    node = group.output
    _emit(ctx, AdaptiveAvgPool(), ctx.value(node.args[0]), ctx.output(node), {})  # type: ignore[arg-type]


def _emit(
    ctx: Lowering, spec: Pool | AdaptiveAvgPool, x: Value, y: Value, extra: dict[str, Argument]
) -> None:
    n, channels, height, width = planes(y.shape)
    _, _, in_height, in_width = planes(x.shape)
    blocks = ceil_div(channels, x.block)
    x_batch, x_block, x_row, _ = x.byte_stride
    y_batch, y_block, y_row, _ = y.byte_stride
    ctx.step(
        spec,
        n * blocks * height,
        ("y",),
        x=x, x_batch=x_batch, x_block=x_block, x_row=x_row,
        y=y, y_batch=y_batch, y_block=y_block, y_row=y_row,
        blocks=blocks, in_height=in_height, in_width=in_width, height=height, width=width,
        **extra,
    )  # fmt: skip


def _pair(value: int | Sequence[int], spec: TensorSpec, alone: int) -> tuple[int, int]:
    """(rows, columns) of a setting; ``alone`` for the row of one-dimensional pooling."""
    numbers = [value] if isinstance(value, int) else list(value)
    if spec.ndim == 3:  # noqa: PLR2004 - [N, C, L]
        return alone, numbers[0]
    return (numbers[0], numbers[-1])


def accept(node: Node) -> str | None:
    """Batched f32 planes."""
    spec: TensorSpec = node.meta["spec"]
    dims = 3 if node.target in (aten.max_pool1d.default, aten.avg_pool1d.default, ADAPTIVE[0]) else 4
    if spec.ndim != dims:
        return "pooling without a batch dimension has no kernel"
    if spec.dtype != torch.float32:
        return f"pooling of {str(spec.dtype).removeprefix('torch.')} has no kernel"
    if not all(isinstance(size, int) for size in _flat(node.args[1:])):
        return "a window whose size changes has no kernel"
    return None


def _flat(args: Sequence[Any]) -> list[Int]:
    return [n for a in args for n in (a if isinstance(a, (list, tuple)) else [a]) if n is not None]


def _row(op: Any, lower: Any) -> Row:
    return Row(op, "pool", accept, lower, layout="blocked")


ROWS: tuple[Row, ...] = (
    _row(aten.max_pool1d.default, lower_window),
    _row(aten.max_pool2d.default, lower_window),
    _row(aten.avg_pool1d.default, lower_window),
    _row(aten.avg_pool2d.default, lower_window),
    _row(aten.adaptive_avg_pool1d.default, lower_adaptive),
    _row(aten.adaptive_avg_pool2d.default, lower_adaptive),
)
