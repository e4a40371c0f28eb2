"""Rows of operators that join, extend, repeat and make tensors: copies into slices, fills."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.fx import Node

from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Int, ceil_div, maximum
from torch_aio.kernels.chain import DTYPES, Chain, Const, Step
from torch_aio.kernels.gather import SEQUENCE_GRAIN, SequenceSpec
from torch_aio.plan.families.copies import apply, copy
from torch_aio.plan.lowering import Group, Lowering
from torch_aio.plan.row import Row
from torch_aio.plan.strides import reshaped
from torch_aio.plan.value import Value

aten = torch.ops.aten

# ---- joining ------------------------------------------------------------------------------


def cat(ctx: Lowering, group: Group) -> None:
    """``cat(tensors, dim)``: copies into slices; blocked along whole channel blocks.

    Parts that were written in place already (``plan.joined``) are not copied.
    """
    node = group.output
    target, dim = ctx.output(node), _cat_dim(node)
    at: Int = 0
    for part in items(node, 0):
        value = value_of(ctx, part)
        if len(value.shape) != len(target.shape):
            continue  # an empty tensor of one dimension, which cat ignores
        place = _slice(target, dim, at, value.shape[dim])
        if place != value:
            copy(ctx, value, place)
        at = at + value.shape[dim]


def _cat_dim(node: Node) -> int:
    dim: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    spec: TensorSpec = node.meta["spec"]
    return int(dim) % max(spec.ndim, 1)


def _slice(target: Value, dim: int, start: Int, size: Int) -> Value:
    """``size`` elements of a dimension from ``start`` on."""
    shape = (*target.shape[:dim], size, *target.shape[dim + 1 :])
    if target.block:
        return target.channels(int(start), size)  # type: ignore[arg-type]
    return target.view(shape, target.stride, start * target.stride[dim])


def cat_is_blocked(node: Node) -> bool:
    """Blocked where parts are, and each but the last ends with a whole block."""
    spec: TensorSpec = node.meta["spec"]
    parts: Any = node.args[0]
    if spec.ndim not in (3, 4, 5) or spec.dtype != torch.float32 or _cat_dim(node) != 1:
        return False
    if not any(part.meta.get("layout") == "blocked" for part in parts):
        return False
    sizes = [part.meta["spec"].shape[1] for part in parts]
    return all(isinstance(s, int) and s % 16 == 0 for s in sizes[:-1]) and all(
        part.meta["spec"].dtype == torch.float32 for part in parts
    )


def pad(ctx: Lowering, group: Group) -> None:
    """``constant_pad_nd(x, sides, value)``: slabs around a copy; negative sides cut.

    All steps write disjoint parts: steps that write one buffer may run at the same time.
    """
    node = group.output
    value, sides = value_of(ctx, node.args[0]), [number_of(s) for s in items(node, 1)]
    number: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("value", 0)
    target = ctx.output(node)
    for n, (before, after) in enumerate(zip(sides[::2], sides[1::2], strict=True)):
        dim = len(value.shape) - 1 - n
        low, high = maximum(-before, 0), maximum(-after, 0)
        value = _slice(value, dim, low, value.shape[dim] - low - high)
        start, end = maximum(before, 0), maximum(after, 0)
        inside = value.shape[dim]
        fill(ctx, _slice(target, dim, 0, start), number)
        fill(ctx, _slice(target, dim, start + inside, end), number)
        target = _slice(target, dim, start, inside)
    copy(ctx, value, target)


def flip(ctx: Lowering, group: Group) -> None:
    """``flip(x, dims)``: a copy with negative strides."""
    value = value_of(ctx, group.output.args[0])
    dims: Any = group.output.args[1]
    stride, offset = list(value.stride), value.offset
    for d in dims:
        at = d % len(value.shape)
        offset = offset + (value.shape[at] - 1) * stride[at] * value.itemsize
        stride[at] = -stride[at]
    source = replace(value, stride=tuple(stride), offset=offset)
    copy(ctx, source, ctx.output(group.output))


def repeat(ctx: Lowering, group: Group) -> None:
    """``repeat(x, times)``: the target seen as [times, size, ...], the operand broadcast."""
    node = group.output
    value, times = value_of(ctx, node.args[0]), [number_of(t) for t in items(node, 1)]
    missing = len(times) - len(value.shape)
    sizes = (1,) * missing + value.shape
    strides = (0,) * missing + value.stride
    pairs = [(t, s) for t, s in zip(times, sizes, strict=True)]
    shape = tuple(n for pair in pairs for n in pair)
    target = ctx.output(node)
    seen = reshaped(target.shape, target.stride, shape)
    assert seen is not None, "a dimension divided in two is always a view"
    source = value.view(shape, tuple(n for s in strides for n in (0, s)))
    copy(ctx, source, target.view(shape, seen))


# ---- making -------------------------------------------------------------------------------


def fill(ctx: Lowering, target: Value, number: Any) -> None:
    """Write one number everywhere."""
    dtype = DTYPES[target.dtype]
    apply(ctx, Chain((), (Step("cast", (Const(number),), dtype),)), [], target)


def full(ctx: Lowering, group: Group) -> None:
    """``full(size, number)``."""
    node = group.output
    given: Any = node.args[1] if len(node.args) > 1 else node.kwargs["fill_value"]
    fill(ctx, ctx.output(node), given)


def arange(ctx: Lowering, group: Group) -> None:
    """``arange(start, end, step)`` of integers."""
    start, _, step = (number_of(a) for a in group.output.args)
    target = ctx.output(group.output)
    count = target.shape[0]
    ctx.step(
        SequenceSpec(DTYPES[target.dtype]), ceil_div(count, SEQUENCE_GRAIN), ("y",),
        y=target, count=count, start=start, step=step,
    )  # fmt: skip


# ---- operands and what is accepted --------------------------------------------------------


def items(node: Node, position: int) -> list[Any]:
    """A list argument."""
    given: Any = node.args[position]
    return list(given)


def value_of(ctx: Lowering, argument: Any) -> Value:
    """The value of a tensor argument."""
    assert isinstance(argument, Node)
    return ctx.value(argument)


def number_of(argument: Any) -> Any:
    """A number, or the size that a node stands for."""
    return argument.meta["spec"] if isinstance(argument, Node) else argument


def dtype_reason(*nodes: Any) -> str | None:
    """Why nodes of these dtypes are refused, if they are."""
    for node in nodes:
        dtype = node.meta["spec"].dtype
        if dtype not in DTYPES:
            return f"no kernel moves {str(dtype).removeprefix('torch.')}"
    return None


def accept_cat(node: Node) -> str | None:
    """Dtypes that chains know."""
    return dtype_reason(node, *items(node, 0))


def accept_moved(node: Node) -> str | None:
    """A dtype that chains know."""
    return dtype_reason(node, node.args[0])


def accept_full(node: Node) -> str | None:
    """A number, not a size that changes."""
    given: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("fill_value")
    return "the number to fill with changes" if isinstance(given, Node) else dtype_reason(node)


def accept_arange(node: Node) -> str | None:
    """Integer bounds."""
    if any(isinstance(number_of(a), float) for a in node.args):
        return "arange of fractions has no kernel"
    return dtype_reason(node)


ROWS: tuple[Row, ...] = (
    Row(aten.cat.default, "copy", accept_cat, cat, layout="blocked", wants_blocked=cat_is_blocked),
    Row(aten.constant_pad_nd.default, "copy", accept_moved, pad),
    Row(aten.flip.default, "copy", accept_moved, flip),
    Row(aten.repeat.default, "copy", accept_moved, repeat),
    Row(aten.full.default, "copy", accept_full, full),
    Row(aten.arange.start_step, "copy", accept_arange, arange),
)
