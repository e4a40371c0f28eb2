"""Rows of operators that pick by index tensors: embedding, indexing, gather."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from torch_aio.ir.symbols import Int, product
from torch_aio.kernels.chain import DTYPES
from torch_aio.kernels.gather import GatherRowsSpec, GatherSpec
from torch_aio.plan.families import joining
from torch_aio.plan.families.copies import contiguous, copy
from torch_aio.plan.families.joining import dtype_reason, value_of
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
    table, indices = (value_of(ctx, a) for a in group.output.args[:2])
    _gather_rows(ctx, group.output, table, 0, [indices], wraps=False)


def index_select(ctx: Lowering, group: Group) -> None:
    """``index_select(x, dim, index)``."""
    x, index = value_of(ctx, group.output.args[0]), value_of(ctx, group.output.args[2])
    axis: Any = group.output.args[1]
    dim = int(axis) % max(len(x.shape), 1)
    x, places = (v.view(v.shape or (1,), v.stride or (1,)) for v in (x, index))
    _gather_rows(ctx, group.output, x, dim, [places], wraps=False)


def index(ctx: Lowering, group: Group) -> None:
    """``x[.., i, j, ..]``: integer tensors on adjacent dimensions."""
    x = value_of(ctx, group.output.args[0])
    places: Any = group.output.args[1]
    first = next(d for d, i in enumerate(places) if i is not None)
    indices = [value_of(ctx, i) for i in places if i is not None]
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
    x, places = value_of(ctx, node.args[0]), value_of(ctx, node.args[2])
    rank = max(len(x.shape), 1)
    axis: Any = node.args[1]
    dim = int(axis) % rank
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


# ---- operands and what is accepted --------------------------------------------------------


def _index_reason(*nodes: Any) -> str | None:
    for node in nodes:
        dtype = node.meta["spec"].dtype
        if dtype not in INTEGERS:
            return f"indices of {str(dtype).removeprefix('torch.')} have no kernel"
    return None


def accept_embedding(node: Node) -> str | None:
    """Integer indices; the gradient's options do not matter."""
    return dtype_reason(node.args[0]) or _index_reason(node.args[1])


def accept_select(node: Node) -> str | None:
    """Integer indices."""
    return dtype_reason(node.args[0]) or _index_reason(node.args[2])


def accept_index(node: Node) -> str | None:
    """Integer tensors on adjacent dimensions."""
    places: Any = node.args[1]
    given = [d for d, i in enumerate(places) if i is not None]
    if given != list(range(given[0], given[-1] + 1)):
        return "index tensors on dimensions that are not adjacent have no kernel"
    return dtype_reason(node.args[0]) or _index_reason(*(places[d] for d in given))


def accept_gather(node: Node) -> str | None:
    """Integer indices, up to six dimensions."""
    if node.meta["spec"].ndim > 6:  # pointers for more do not fit the registers
        return "gather beyond six dimensions has no kernel"
    return accept_select(node)


ROWS: tuple[Row, ...] = (
    Row(aten.embedding.default, "index", accept_embedding, embedding),
    Row(aten.index_select.default, "index", accept_select, index_select),
    Row(aten.index.Tensor, "index", accept_index, index),
    Row(aten.gather.default, "index", accept_gather, gather),
    *joining.ROWS,
)
