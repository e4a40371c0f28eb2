"""One spelling for lookups and scatters: bags, gathers with broadcasting, masks, triangles."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.fx import Node

from torch_aio.graph.rewrite import Rule, Value, aten, bind, dim, emit, refuse, spec
from torch_aio.ops.embedding_bag import embedding_bag


def bag_item(node: Node) -> Value:
    """getitem(embedding_bag(w, i, o, ..), 0) -> aio.embedding_bag(w, i, o, mode, s, last, p)."""
    call, index = node.args
    assert isinstance(call, Node)
    if index != 0:
        return None
    bound = bind(call)
    table = bound["weight"]
    padding = bound.get("padding_idx")
    if padding is None:
        padding = -1
    elif padding < 0 and call.target is aten.embedding_bag.padding_idx:  # elsewhere -1 is none
        padding = padding + spec(table).shape[0]
    args = (
        table,
        bound["indices"],
        bound["offsets"],
        bound["mode"],
        bound["per_sample_weights"],
        bound["include_last_offset"],
        padding,
    )
    return emit(node.graph, node, embedding_bag, args)


def take_along_dim(node: Node) -> Value:
    """take_along_dim(x, i, d) -> gather(expand(x), d, expand(i)); without d of both in one row."""
    bound = bind(node)
    x, index, axis, graph = bound["self"], bound["indices"], bound["dim"], node.graph
    if axis is None:
        x, axis = emit(graph, node, aten.reshape.default, (x, [-1])), 0
        index = emit(graph, node, aten.reshape.default, (index, [-1]))
    axis, shape = dim(axis, spec(x).ndim), list(spec(node).shape)
    source = [*shape[:axis], spec(x).shape[axis], *shape[axis + 1 :]]
    if not all(isinstance(size, int) for size in (*shape, *source)):
        refuse(node, "normalise", "take_along_dim of sizes that change is left as it is")
        return None
    wide = emit(graph, node, aten.expand.default, (x, source))
    is_negative = emit(graph, node, aten.lt.Scalar, (index, 0))
    from_end = emit(graph, node, aten.add.Tensor, (index, source[axis]))
    index = emit(graph, node, aten.where.self, (is_negative, from_end, index))
    places = emit(graph, node, aten.expand.default, (index, shape))
    return emit(graph, node, aten.gather.default, (wide, axis, places))


def masked_put(node: Node) -> Value:
    """index_put(x, [mask], v) -> where(mask, v, x), the mask over leading dimensions, v a number.

    Values that are one for each row that the mask picks have a data-dependent shape.
    """
    bound = bind(node)
    x, places, value = bound["self"], bound["indices"], bound["values"]
    mask = places[0] if len(places) == 1 else None
    if mask is None or spec(mask).dtype != torch.bool or bound["accumulate"]:
        return None
    if not all(isinstance(size, int) and size == 1 for size in spec(value).shape):
        refuse(node, "normalise", "values for each element of a mask are left as they are")
        return None
    for _ in range(spec(x).ndim - spec(mask).ndim):
        mask = emit(node.graph, node, aten.unsqueeze.default, (mask, -1))
    if spec(value).ndim:
        value = emit(node.graph, node, aten.reshape.default, (value, []))
    return emit(node.graph, node, aten.where.self, (mask, value, x))


def slice_scatter(node: Node) -> Value:
    """slice_scatter(x, y, d, a, b) -> cat([x[:a], y, x[b:]], d); select_scatter likewise."""
    bound = bind(node)
    x, part, axis = bound["self"], bound["src"], dim(bound["dim"], spec(node).ndim)
    size = spec(x).shape[axis]
    is_slice = node.target is aten.slice_scatter.default
    first = bound["start"] if is_slice else bound["index"]
    first = 0 if first is None else first
    if bound.get("step", 1) != 1 or not isinstance(size, int) or not isinstance(first, int):
        refuse(node, "normalise", "writing to every other place, or to places that change")
        return None
    if spec(part).dtype != spec(x).dtype:
        return None
    start = min(max(first + size if first < 0 else first, 0), size)
    if not is_slice:
        part = emit(node.graph, node, aten.unsqueeze.default, (part, axis))
    stop = start + spec(part).shape[axis]
    parts = [part]
    if start:
        parts.insert(0, emit(node.graph, node, aten.slice.Tensor, (x, axis, 0, start)))
    if stop != size:
        parts.append(emit(node.graph, node, aten.slice.Tensor, (x, axis, stop, sys.maxsize)))
    return emit(node.graph, node, aten.cat.default, (parts, axis))


def triangle(node: Node) -> Value:
    """tril(x, k) -> where(columns - rows <= k, x, 0); triu with >=."""
    bound = bind(node)
    x, graph, out = bound["self"], node.graph, spec(node)
    rows, columns = out.shape[-2:]
    if not isinstance(rows, int) or not isinstance(columns, int):
        refuse(node, "normalise", "a triangle whose size changes is left as it is")
        return None
    steps = [
        emit(graph, node, aten.arange.start_step, (0, size, 1), {"dtype": torch.int64})
        for size in (rows, columns)
    ]
    down = emit(graph, node, aten.unsqueeze.default, (steps[0], 1))
    away = emit(graph, node, aten.sub.Tensor, (steps[1], down))
    compare = aten.le.Scalar if node.target is aten.tril.default else aten.ge.Scalar
    kept = emit(graph, node, compare, (away, bound["diagonal"]))
    zero = emit(graph, node, aten.full.default, ([], 0), {"dtype": out.dtype})
    return emit(graph, node, aten.where.self, (kept, x, zero))


def scatter_number(node: Node) -> Value:
    """scatter(x, d, i, 2.0) -> scatter(x, d, i, expand(full([], 2.0), i)), with reduce as well."""
    bound = bind(node)
    x, index = bound["self"], bound["index"]
    if not all(isinstance(size, int) for size in spec(index).shape):
        refuse(node, "normalise", "a number scattered to places whose number changes")
        return None
    typed = {"dtype": spec(node).dtype}
    number = emit(node.graph, node, aten.full.default, ([], bound["value"]), typed)
    source = emit(node.graph, node, aten.expand.default, (number, list(spec(index).shape)))
    args = (x, bound["dim"], index, source)
    if "reduce" not in bound:
        return emit(node.graph, node, aten.scatter.src, args)
    kind = _REDUCTIONS[bound["reduce"]]
    return emit(node.graph, node, aten.scatter_reduce.two, (*args, kind))


def scatter_joined(node: Node) -> Value:
    """scatter(x, d, i, y, reduce="add") -> scatter_reduce(x, d, i, y, "sum")."""
    bound = bind(node)
    args = (*(bound[key] for key in ("self", "dim", "index", "src")), _REDUCTIONS[bound["reduce"]])
    return emit(node.graph, node, aten.scatter_reduce.two, args)


_REDUCTIONS = {"add": "sum", "multiply": "prod"}
_BAGS: tuple[Any, ...] = (
    aten.embedding_bag.default,
    aten.embedding_bag.padding_idx,
    aten._embedding_bag.default,
    aten._embedding_bag_forward_only.default,
)
ITEMS: dict[Any, Rule] = dict.fromkeys(_BAGS, bag_item)
RULES: dict[Any, Rule] = {
    aten.take_along_dim.default: take_along_dim,
    aten.index_put.default: masked_put,
    aten.slice_scatter.default: slice_scatter,
    aten.select_scatter.default: slice_scatter,
    aten.tril.default: triangle,
    aten.triu.default: triangle,
    aten.scatter.value: scatter_number,
    aten.scatter.value_reduce: scatter_number,
    aten.scatter.reduce: scatter_joined,
}
