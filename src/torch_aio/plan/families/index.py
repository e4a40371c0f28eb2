"""Rows of operators that pick, join and make: embedding, indexing, gather, cat, pad, arange, full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.fx import Node

from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Int, ceil_div, product
from torch_aio.kernels.chain import DTYPES, Chain, Const, Step
from torch_aio.kernels.gather import (
    SEQUENCE_GRAIN,
    GatherRowsSpec,
    GatherSpec,
    SequenceSpec,
)
from torch_aio.plan.families.copies import apply, contiguous, copy
from torch_aio.plan.lowering import Group, Lowering
from torch_aio.plan.row import Row
from torch_aio.plan.strides import reshaped
from torch_aio.plan.value import Argument, Buffer, Value

aten = torch.ops.aten
INTEGERS = (torch.int64, torch.int32)


def error_word() -> Value:
    """The word in which a kernel reports an index outside its table."""
    return Value(Buffer("error", 8, 0), (1,), torch.int64, (1,))


# ---- rows by index ------------------------------------------------------------------------


def embedding(ctx: Lowering, group: Group) -> None:
    """``embedding(table, indices)``."""
    table, indices = (_value(ctx, a) for a in group.output.args[:2])
    _gather_rows(ctx, group.output, table, 0, [indices], wraps=False)


def index_select(ctx: Lowering, group: Group) -> None:
    """``index_select(x, dim, index)``."""
    x, index = _value(ctx, group.output.args[0]), _value(ctx, group.output.args[2])
    dim = int(group.output.args[1]) % max(len(x.shape), 1)  # type: ignore[call-overload]
    _gather_rows(ctx, group.output, x, dim, [index.view((index.shape or (1,)), (1,))], wraps=False)


def index(ctx: Lowering, group: Group) -> None:
    """``x[.., i, j, ..]``: integer tensors on adjacent dimensions."""
    x = _value(ctx, group.output.args[0])
    places: Any = group.output.args[1]
    first = next(d for d, i in enumerate(places) if i is not None)
    indices = [_value(ctx, i) for i in places if i is not None]
    _gather_rows(ctx, group.output, x, first, indices, wraps=True)


def _gather_rows(
    ctx: Lowering, node: Node, x: Value, dim: int, indices: list[Value], *, wraps: bool
) -> None:
    """``y[outer, r, row] = x[outer, i[r], ..., row]``; dimensions that do not merge are copied."""
    outer = product(x.shape[:dim])
    after = dim + len(indices)
    width = product(x.shape[after:])
    shape = (outer, *x.shape[dim:after], width)
    stride = reshaped(x.shape, x.stride, shape)
    if stride is None or (stride[-1] != 1 and width != 1):
        x = contiguous(ctx, x)
        stride = reshaped(x.shape, x.stride, shape)
        assert stride is not None
    joined = _joined(indices)
    count = product(joined)
    target = ctx.output(node)
    y = target if target.is_contiguous else ctx.temporary(target.shape, target.dtype)
    arguments: dict[str, Argument] = {"x": x, "x_outer": stride[0] * x.itemsize}
    for j, value in enumerate(indices):
        arguments[f"i{j}"] = contiguous(ctx, value.expand(joined), indices[0].dtype)
        arguments[f"n{j}"] = x.shape[dim + j]
        arguments[f"x_{j}"] = stride[1 + j] * x.itemsize
    spec = GatherRowsSpec(x.itemsize, len(indices), DTYPES[indices[0].dtype], wraps)
    ctx.step(
        spec, outer * count, ("y", "error"), **arguments,
        y=y, y_outer=count * width * y.itemsize, y_row=width * y.itemsize,
        count=count, width=width, error=error_word(),
    )  # fmt: skip
    if y is not target:
        copy(ctx, y, target)


def _joined(indices: Sequence[Value]) -> tuple[Int, ...]:
    """The shape that index tensors broadcast to."""
    rank = max(len(i.shape) for i in indices)
    shape: list[Int] = [1] * rank
    for value in indices:
        for d, size in enumerate(value.shape, rank - len(value.shape)):
            shape[d] = size if size != 1 else shape[d]
    return tuple(shape)


def gather(ctx: Lowering, group: Group) -> None:
    """``gather(x, dim, index)``."""
    node = group.output
    x, places = _value(ctx, node.args[0]), _value(ctx, node.args[2])
    rank = max(len(x.shape), 1)
    dim = int(node.args[1]) % rank  # type: ignore[call-overload]
    target = ctx.output(node)
    sizes = places.shape or (1,)
    arguments: dict[str, Argument] = {"x": x, "index": places, "y": target}
    for name in ("x", "index", "y"):
        value = arguments[name]
        assert isinstance(value, Value)
        for d, step in enumerate(value.byte_stride or (0,)):
            arguments[f"{name}_{d}"] = step
    arguments.update({f"n{d}": size for d, size in enumerate(sizes)})
    spec = GatherSpec(x.itemsize, rank, dim, DTYPES[places.dtype])
    size = x.shape[dim] if x.shape else 1
    units = product(sizes[:-1])
    ctx.step(spec, units, ("y", "error"), **arguments, size=size, error=error_word())


# ---- joining ------------------------------------------------------------------------------


def cat(ctx: Lowering, group: Group) -> None:
    """``cat(tensors, dim)``: copies into slices; blocked along whole channel blocks."""
    node = group.output
    target, dim, place = ctx.output(node), _cat_dim(node), 0
    at: Int = place
    for part in node.args[0]:  # type: ignore[union-attr]
        value = _value(ctx, part)
        if len(value.shape) != len(target.shape):
            continue  # an empty tensor of one dimension, which cat ignores
        copy(ctx, value, _slice(target, dim, at, value.shape[dim]))
        at = at + value.shape[dim]


def _cat_dim(node: Node) -> int:
    dim: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    return int(dim) % max(node.meta["spec"].ndim, 1)


def _slice(target: Value, dim: int, start: Int, size: Int) -> Value:
    """``size`` elements of a dimension from ``start`` on."""
    shape = (*target.shape[:dim], size, *target.shape[dim + 1 :])
    if target.block:
        offset = start // target.block * target.byte_stride[1]
        return replace(target, shape=shape, offset=target.offset + offset)
    return target.view(shape, target.stride, start * target.stride[dim])


def cat_is_blocked(node: Node) -> bool:
    """Blocked where parts are, and each but the last ends with a whole block."""
    spec: TensorSpec = node.meta["spec"]
    parts: Any = node.args[0]
    if spec.ndim not in (3, 4) or spec.dtype != torch.float32 or _cat_dim(node) != 1:
        return False
    if not any(part.meta.get("layout") == "blocked" for part in parts):
        return False
    sizes = [part.meta["spec"].shape[1] for part in parts]
    return all(isinstance(s, int) and s % 16 == 0 for s in sizes[:-1]) and all(
        part.meta["spec"].dtype == torch.float32 for part in parts
    )


def pad(ctx: Lowering, group: Group) -> None:
    """``constant_pad_nd(x, sides, value)``: a fill and a copy inside it; negative sides cut."""
    node = group.output
    value, sides = _value(ctx, node.args[0]), [_number(s) for s in node.args[1]]  # type: ignore[union-attr]
    number: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("value", 0)  # noqa: PLR2004
    filled = ctx.output(node)
    fill(ctx, filled, number)
    target = filled
    for n, (before, after) in enumerate(zip(sides[::2], sides[1::2], strict=True)):
        dim = len(value.shape) - 1 - n
        low, high = (max(-s, 0) for s in (before, after))  # type: ignore[type-var]
        value = _slice(value, dim, low, value.shape[dim] - low - high)
        start = max(before, 0)  # type: ignore[type-var]
        target = _slice(target, dim, start, value.shape[dim])
    # the copy overwrites what the fill wrote: it must not share its phase
    copy(ctx, value, target)


def flip(ctx: Lowering, group: Group) -> None:
    """``flip(x, dims)``: a copy with negative strides."""
    value = _value(ctx, group.output.args[0])
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
    value, times = _value(ctx, node.args[0]), [_number(t) for t in node.args[1]]  # type: ignore[union-attr]
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
    start, _, step = (_number(a) for a in group.output.args)
    target = ctx.output(group.output)
    count = target.shape[0]
    ctx.step(
        SequenceSpec(DTYPES[target.dtype]), ceil_div(count, SEQUENCE_GRAIN), ("y",),
        y=target, count=count, start=start, step=step,
    )  # fmt: skip


# ---- operands and what is accepted --------------------------------------------------------


def _value(ctx: Lowering, argument: Any) -> Value:
    assert isinstance(argument, Node)
    return ctx.value(argument)


def _number(argument: Any) -> Any:
    """A number, or the size that a node stands for."""
    return argument.meta["spec"] if isinstance(argument, Node) else argument


def _dtype_reason(*nodes: Any) -> str | None:
    for node in nodes:
        dtype = node.meta["spec"].dtype
        if dtype not in DTYPES:
            return f"no kernel moves {str(dtype).removeprefix('torch.')}"
    return None


def _index_reason(*nodes: Any) -> str | None:
    for node in nodes:
        dtype = node.meta["spec"].dtype
        if dtype not in INTEGERS:
            return f"indices of {str(dtype).removeprefix('torch.')} have no kernel"
    return None


def accept_embedding(node: Node) -> str | None:
    """Integer indices; the gradient's options do not matter."""
    return _dtype_reason(node.args[0]) or _index_reason(node.args[1])


def accept_select(node: Node) -> str | None:
    """Integer indices."""
    return _dtype_reason(node.args[0]) or _index_reason(node.args[2])


def accept_index(node: Node) -> str | None:
    """Integer tensors on adjacent dimensions."""
    places: Any = node.args[1]
    given = [d for d, i in enumerate(places) if i is not None]
    if given != list(range(given[0], given[-1] + 1)):
        return "index tensors on dimensions that are not adjacent have no kernel"
    return _dtype_reason(node.args[0]) or _index_reason(*(places[d] for d in given))


def accept_gather(node: Node) -> str | None:
    """Integer indices, up to six dimensions."""
    if node.meta["spec"].ndim > 6:  # noqa: PLR2004 - pointers for more do not fit the registers
        return "gather beyond six dimensions has no kernel"
    return accept_select(node)


def accept_cat(node: Node) -> str | None:
    """Dtypes that chains know."""
    return _dtype_reason(node, *node.args[0])  # type: ignore[misc]


def accept_moved(node: Node) -> str | None:
    """A dtype that chains know."""
    return _dtype_reason(node, node.args[0])


def accept_full(node: Node) -> str | None:
    """A number, not a size that changes."""
    given: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("fill_value")
    return "the number to fill with changes" if isinstance(given, Node) else _dtype_reason(node)


def accept_arange(node: Node) -> str | None:
    """Integer bounds."""
    if any(isinstance(_number(a), float) for a in node.args):
        return "arange of fractions has no kernel"
    return _dtype_reason(node)


ROWS: tuple[Row, ...] = (
    Row(aten.embedding.default, "index", accept_embedding, embedding),
    Row(aten.index_select.default, "index", accept_select, index_select),
    Row(aten.index.Tensor, "index", accept_index, index),
    Row(aten.gather.default, "index", accept_gather, gather),
    Row(aten.cat.default, "copy", accept_cat, cat, layout="blocked", wants_blocked=cat_is_blocked),
    Row(aten.constant_pad_nd.default, "copy", accept_moved, pad),
    Row(aten.flip.default, "copy", accept_moved, flip),
    Row(aten.repeat.default, "copy", accept_moved, repeat),
    Row(aten.full.default, "copy", accept_full, full),
    Row(aten.arange.start_step, "copy", accept_arange, arange),
)
