"""Rows of operators that write or sum where index tensors say, and of embedding bags."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from torch_aio.ir.symbols import Int, product
from torch_aio.kernels.chain import DTYPES
from torch_aio.kernels.embedding_bag import EmbeddingBagSpec
from torch_aio.kernels.scatter import ScatterSpec
from torch_aio.ops.embedding_bag import embedding_bag
from torch_aio.plan.families.copies import contiguous, copy
from torch_aio.plan.families.index import INTEGERS, error_word
from torch_aio.plan.families.joining import dtype_reason, fill, value_of
from torch_aio.plan.lowering import Group, Lowering
from torch_aio.plan.row import Row
from torch_aio.plan.strides import reshaped
from torch_aio.plan.value import Argument, Value

aten = torch.ops.aten
WORDS = {1: "i8", 2: "i16", 4: "i32", 8: "i64"}
"""What elements that are only moved are, by their bytes."""
MODES = ("sum", "mean", "max")
REDUCTIONS = {"sum": "add", "prod": "mul", "amax": "max", "amin": "min"}
START = {"add": 0, "mul": 1}

# ---- bags ---------------------------------------------------------------------------------


def bag(ctx: Lowering, group: Group) -> None:
    """``aio.embedding_bag(table, indices, offsets, mode, weights, include_last, padding)``."""
    node = group.output
    options: Any = node.args[3:7]
    mode, weights, _, padding = options
    table, indices, offsets = (value_of(ctx, a) for a in node.args[:3])
    if table.stride[1] != 1:
        table = contiguous(ctx, table)
    wide = torch.int64 if torch.int64 in (indices.dtype, offsets.dtype) else torch.int32
    target = ctx.output(node)
    arguments: dict[str, Argument] = {}
    if weights is not None:
        arguments["weights"] = contiguous(ctx, value_of(ctx, weights))
    ctx.step(
        EmbeddingBagSpec(MODES[mode], DTYPES[wide], bool(arguments)),
        target.shape[0], ("y", "error"),
        table=table, table_row=table.byte_stride[0], rows=table.shape[0], width=table.shape[1],
        padding=padding, indices=contiguous(ctx, indices, wide), count=indices.shape[0],
        offsets=contiguous(ctx, offsets, wide), given=offsets.shape[0],
        y=target, error=error_word(), **arguments,
    )  # fmt: skip


# ---- elements along one dimension ---------------------------------------------------------


def scatter(ctx: Lowering, group: Group) -> None:
    """``scatter(x, d, i, src)``, ``scatter_add``, ``scatter_reduce.two``."""
    node = group.output
    index, source = value_of(ctx, node.args[2]), value_of(ctx, node.args[3])
    target = _copied(ctx, node)
    op, dim = _operation(node), _axis(node)
    source = source.view(index.shape or (1,), source.stride or (1,))  # what the index reaches
    index = index.view(index.shape or (1,), index.stride or (1,))
    target = target.view(target.shape or (1,), target.stride or (1,))
    if not node.kwargs.get("include_self", True):
        start = ctx.temporary((1,), target.dtype)
        fill(ctx, start, _start(op, target.dtype))
        _scatter(ctx, "set", start.expand(index.shape), index, target, dim)
    _scatter(ctx, op, source, index, target, dim)


def index_add(ctx: Lowering, group: Group) -> None:
    """``index_add(x, d, i, src)``, ``index_copy``: slices of x along a dimension."""
    node = group.output
    index, source = value_of(ctx, node.args[2]), value_of(ctx, node.args[3])
    target = _copied(ctx, node)
    op = "add" if node.target is aten.index_add.default else "set"
    source, target = (v.view(v.shape or (1,), v.stride or (1,)) for v in (source, target))
    places = _along(index, _axis(node), source.shape)
    _scatter(ctx, op, source, places, target, _axis(node))


def index_put(ctx: Lowering, group: Group) -> None:
    """``x[:, i] = v`` and, accumulating, ``x[:, i] += v`` with one tensor of integers."""
    node = group.output
    given: Any = node.args[1]
    dim = next(d for d, i in enumerate(given) if i is not None)
    index, source = value_of(ctx, given[dim]), value_of(ctx, node.args[2])
    target = _copied(ctx, node)
    before, after = target.shape[:dim], target.shape[dim + 1 :]
    source = source.expand((*before, *index.shape, *after))
    shape = (product(before), product(index.shape), product(after))
    stride = reshaped(source.shape, source.stride, shape)
    if stride is None:
        source = contiguous(ctx, source)
        stride = (shape[1] * shape[2], shape[2], 1)
    whole = target if target.is_contiguous else contiguous(ctx, target)
    size = target.shape[dim]
    rows = whole.view((shape[0], size, shape[2]), (size * shape[2], shape[2], 1))
    places = contiguous(ctx, index).view(shape[1:2], (1,))
    op = "add" if len(node.args) > 3 and node.args[3] else "set"
    _scatter(ctx, op, source.view(shape, stride), _along(places, 1, shape), rows, 1, wraps=True)
    if whole is not target:
        copy(ctx, whole, target)


def _scatter(
    ctx: Lowering, op: str, source: Value, index: Value, target: Value, dim: int,
    *, wraps: bool = False,
) -> None:  # fmt: skip
    rank = len(index.shape)
    arguments: dict[str, Argument] = {"source": source, "index": index, "y": target}
    for name, value in (("source", source), ("index", index), ("y", target)):
        arguments.update({f"{name}_{d}": step for d, step in enumerate(value.byte_stride)})
    arguments.update({f"n{d}": size for d, size in enumerate(index.shape)})
    dtype = WORDS[target.itemsize] if op == "set" else DTYPES[target.dtype]
    spec = ScatterSpec(op, dtype, rank, dim, DTYPES[index.dtype], wraps)
    units = product(tuple(n for d, n in enumerate(index.shape) if d != dim))
    ctx.step(
        spec, units, ("y", "error"), **arguments,
        old=target, size=target.shape[dim], error=error_word(),
    )  # fmt: skip


# ---- operands -----------------------------------------------------------------------------


def _copied(ctx: Lowering, node: Node) -> Value:
    """The result with what x holds."""
    target = ctx.output(node)
    copy(ctx, value_of(ctx, node.args[0]), target)
    return target


def _axis(node: Node) -> int:
    axis: Any = node.args[1]
    ndim: int = node.meta["spec"].ndim
    return int(axis) % max(ndim, 1)


def _along(index: Value, dim: int, shape: tuple[Int, ...]) -> Value:
    """One index for each place of a dimension, the same across all others."""
    step = index.stride[0] if index.stride else 0
    return index.view(shape, tuple(step if d == dim else 0 for d in range(len(shape))))


def _operation(node: Node) -> str:
    if node.target is aten.scatter.src:
        return "set"
    if node.target is aten.scatter_add.default:
        return "add"
    given: Any = node.kwargs["reduce"] if "reduce" in node.kwargs else node.args[4]
    return REDUCTIONS.get(given, "")


def _start(op: str, dtype: torch.dtype) -> float | int:
    """What leaves the other operand as it is."""
    if op in START:
        return START[op]
    if dtype.is_floating_point:
        return float("-inf") if op == "max" else float("inf")
    limits = torch.iinfo(dtype)
    return limits.min if op == "max" else limits.max


# ---- what is accepted ---------------------------------------------------------------------


def _reason(node: Node, op: str, *indices: Any) -> str | None:
    dtype = node.meta["spec"].dtype
    for index in indices:
        kind = index.meta["spec"].dtype
        if kind not in INTEGERS:
            return f"indices of {str(kind).removeprefix('torch.')} have no kernel"
    if op != "set" and (dtype == torch.bool or dtype in (torch.float16, torch.bfloat16)):
        return f"scattered sums of {str(dtype).removeprefix('torch.')} have no kernel"
    if node.meta["spec"].ndim > 6:  # pointers for more do not fit the registers
        return "scatters beyond six dimensions have no kernel"
    return dtype_reason(node)


def accept_bag(node: Node) -> str | None:
    """f32 tables."""
    table, weights = node.args[0], node.args[4]
    for given in (table, weights):
        if isinstance(given, Node) and given.meta["spec"].dtype != torch.float32:
            dtype = str(given.meta["spec"].dtype).removeprefix("torch.")
            return f"bags of {dtype} have no kernel"
    return None


def accept_scatter(node: Node) -> str | None:
    """Integer indices; no means."""
    op = _operation(node)
    return _reason(node, op, node.args[2]) if op else "scattered means have no kernel"


def accept_slices(node: Node) -> str | None:
    """Integer indices, a factor of one."""
    if node.kwargs.get("alpha", 1) != 1:
        return "index_add with a factor has no kernel"
    return _reason(node, "set" if node.target is aten.index_copy.default else "add", node.args[2])


def accept_put(node: Node) -> str | None:
    """One tensor of integers."""
    places: Any = node.args[1]
    given = [i for i in places if i is not None]
    if any(i.meta["spec"].dtype == torch.bool for i in given):
        return "values for each element of a mask have a data-dependent shape"
    if len(given) != 1:
        return "index_put by several index tensors has no kernel"
    return _reason(node, "add" if len(node.args) > 3 and node.args[3] else "set", *given)


ROWS: tuple[Row, ...] = (
    Row(embedding_bag, "index", accept_bag, bag),
    Row(aten.scatter.src, "index", accept_scatter, scatter),
    Row(aten.scatter_add.default, "index", accept_scatter, scatter),
    Row(aten.scatter_reduce.two, "index", accept_scatter, scatter),
    Row(aten.index_add.default, "index", accept_slices, index_add),
    Row(aten.index_copy.default, "index", accept_slices, index_add),
    Row(aten.index_put.default, "index", accept_put, index_put),
)
