"""One spelling for norms, softmax, pooling and reductions."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from torch_aio.graph.compare import is_same
from torch_aio.graph.rewrite import Rule, Value, aten, bind, callee, dim, emit, spec
from torch_aio.graph.spelling.images import batched


def batch_norm(node: Node) -> Value:
    """batch_norm(x, .., training=False, m, eps, c) -> batch_norm(x, .., False, 0.0, eps, False)."""
    bound = bind(node)
    keys = ("input", "weight", "bias", "running_mean", "running_var")
    args = (*(bound[key] for key in keys), False, 0.0, bound["eps"], False)
    if bound["training"] or bound["running_mean"] is None or tuple(node.args) == args:
        return None
    return emit(node.graph, node, aten.batch_norm.default, args)


def batch_norm_item(node: Node) -> Value:
    """getitem(native_batch_norm in inference, 0) -> batch_norm(x, w, b, mean, var, False, ..)."""
    call, index = node.args
    assert isinstance(call, Node)
    bound = bind(call)
    if index != 0 or bound.get("training", False) or bound["running_mean"] is None:
        return None
    keys = ("input", "weight", "bias", "running_mean", "running_var")
    args = (*(bound[key] for key in keys), False, 0.0, bound["eps"], False)
    return emit(node.graph, node, aten.batch_norm.default, args)


def layer_norm_item(node: Node) -> Value:
    """getitem(native_layer_norm(x, s, w, b, eps), 0) -> layer_norm(x, s, w, b, eps, False)."""
    call, index = node.args
    assert isinstance(call, Node)
    if index != 0:
        return None
    return emit(node.graph, node, aten.layer_norm.default, (*call.args, False))


def layer_norm(node: Node) -> Value:
    """layer_norm(x, s) -> layer_norm(x, s, w, b, eps, False)."""
    bound = bind(node)
    keys = ("input", "normalized_shape", "weight", "bias", "eps")
    args = (*(bound[key] for key in keys), False)
    return None if tuple(node.args) == args else emit(node.graph, node, node.target, args)


def group_norm_item(node: Node) -> Value:
    """getitem(native_group_norm(x, w, b, n, c, hw, g, eps), 0) -> group_norm(x, g, w, b, eps)."""
    call, index = node.args
    assert isinstance(call, Node)
    if index != 0:
        return None
    bound = bind(call)
    args = (bound["input"], bound["group"], bound["weight"], bound["bias"], bound["eps"], False)
    return emit(node.graph, node, aten.group_norm.default, args)


def max_pool_item(node: Node) -> Value:
    """getitem(max_pool2d_with_indices(x, ..), 0) -> max_pool2d(x, ..)."""
    call, index = node.args
    assert isinstance(call, Node)
    if index != 0:
        return None
    return emit(node.graph, node, _POOLS[callee(call)], call.args, call.kwargs)


def extreme_item(node: Node) -> Value:
    """getitem(max(x, d), 0) -> amax(x, [d]), getitem(.., 1) -> argmax(x, d); also min.

    The largest of truth values is any(x, [d]), the smallest all(x, [d]).
    """
    call, index = node.args
    assert isinstance(call, Node)
    bound = bind(call)
    x, axis, keep = bound["self"], bound["dim"], bound["keepdim"]
    values, places, truth = _EXTREMES[callee(call)]
    if index == 1:
        if spec(x).dtype == torch.bool:
            x = emit(node.graph, node, aten._to_copy.default, (x,), {"dtype": torch.int8})
        return emit(node.graph, node, places, (x, axis, keep))
    if spec(x).dtype == torch.bool:
        return emit(node.graph, node, truth, (x, [axis], keep))
    return emit(node.graph, node, values, (x, [axis], keep))


def max_pool(node: Node) -> Value:
    """max_pool2d(x, 3) -> max_pool2d(x, [k, k], [s, s], [p, p], [d, d], ceil)."""
    bound = bind(node)
    rank = int(str(node.target)[len("aten.max_pool")])
    kernel = _spread(bound["kernel_size"], rank)
    args = (
        bound["self"],
        kernel,
        _spread(bound["stride"], rank) or kernel,
        _spread(bound["padding"], rank),
        _spread(bound["dilation"], rank),
        bound["ceil_mode"],
    )
    same = tuple(node.args) == args and not node.kwargs
    return None if same else emit(node.graph, node, node.target, args)


def average_pool(node: Node) -> Value:
    """avg_pool2d(x, 3) -> avg_pool2d(x, [k, k], [s, s], [p, p], ceil, include_pad, divisor)."""
    bound = bind(node)
    rank = int(str(node.target)[len("aten.avg_pool")])
    kernel = _spread(bound["kernel_size"], rank)
    args = (
        bound["self"],
        kernel,
        _spread(bound["stride"], rank) or kernel,
        _spread(bound["padding"], rank),
        bound["ceil_mode"],
        bound["count_include_pad"],
        *((bound["divisor_override"],) if "divisor_override" in bound else ()),
    )
    same = tuple(node.args) == args and not node.kwargs
    return None if same else emit(node.graph, node, node.target, args)


def adaptive_pool(node: Node) -> Value:
    """_adaptive_avg_pool2d(x, s) -> adaptive_avg_pool2d(x, s)."""
    return emit(node.graph, node, aten.adaptive_avg_pool2d.default, node.args)


def _spread(value: Value, rank: int) -> list[Value]:
    values = [value] if isinstance(value, int) else list(value or ())
    return values * rank if len(values) == 1 else values


def softmax(node: Node) -> Value:
    """_softmax(x, d, h), softmax(x, d, dtype) -> softmax(cast x, d >= 0); also log_softmax."""
    x, axis = node.args[:2]
    assert isinstance(x, Node)
    assert isinstance(axis, int)
    target = aten.log_softmax.int if "log" in str(node.target) else aten.softmax.int
    args: tuple[Value, ...] = (x, dim(axis, spec(x).ndim))
    if node.target is target and tuple(node.args) == args and not node.kwargs:
        return None
    if spec(x).dtype != spec(node).dtype:
        cast = emit(node.graph, node, aten._to_copy.default, (x,), {"dtype": spec(node).dtype})
        args = (cast, args[1])
    new = emit(node.graph, node, target, args)
    return new if is_same(spec(new), spec(node)) else None


def reduce_all(node: Node) -> Value:
    """mean(x) -> mean(x, every dimension); also sum, amax from max, amin from min, any, all."""
    x = node.args[0]
    assert isinstance(x, Node)
    if spec(x).ndim == 0:
        return None
    dims = list(range(spec(x).ndim))
    return emit(node.graph, node, _ALL[callee(node)], (x, dims), node.kwargs)


def reduce(node: Node) -> Value:
    """mean(x, -1, keep) -> mean(x, [last], keep); also sum, amax, amin, var."""
    bound = bind(node)
    ndim = spec(bound["self"]).ndim
    if bound["dim"] is None or ndim == 0:
        return None
    named = [bound["dim"]] if isinstance(bound["dim"], int) else list(bound["dim"])
    dims = [dim(d, ndim) for d in named] or list(range(ndim))
    args = (bound["self"], dims, *((bound["keepdim"],) if bound["keepdim"] else ()))
    kwargs = {"dtype": bound["dtype"]} if bound.get("dtype") is not None else {}
    if tuple(node.args) == args and dict(node.kwargs) == kwargs:
        return None
    return emit(node.graph, node, node.target, args, kwargs)


def mean(node: Node) -> Value:
    """As ``reduce``; mean(x, [2, 3]) -> view(mean(x, [2, 3], True), [-1, c]): a pool of planes."""
    spelled, bound = reduce(node), bind(node)
    if spelled is not None or bound["dim"] is None or bound["keepdim"]:
        return spelled
    x = bound["self"]
    if spec(x).ndim != 4 or sorted(bound["dim"]) != [2, 3] or not isinstance(spec(x).shape[1], int):
        return None
    kept = emit(node.graph, node, node.target, (x, [2, 3], True), node.kwargs)
    return emit(node.graph, node, aten.view.default, (kept, [-1, spec(x).shape[1]]))


def variance(node: Node) -> Value:
    """var(x, d, unbiased, keep) -> var(x, d, correction=1 or 0, keepdim=keep); also std."""
    bound = bind(node)
    target = aten.std.correction if "std" in str(node.target) else aten.var.correction
    kwargs = {"correction": int(bound["unbiased"]), "keepdim": bound.get("keepdim", False)}
    return emit(node.graph, node, target, (bound["self"], bound.get("dim")), kwargs)


_POOLS: dict[Any, Any] = {
    getattr(aten, f"max_pool{n}d_with_indices").default: getattr(aten, f"max_pool{n}d").default
    for n in (2, 3)
}
_EXTREMES: dict[Any, Any] = {
    aten.max.dim: (aten.amax.default, aten.argmax.default, aten.any.dims),
    aten.min.dim: (aten.amin.default, aten.argmin.default, aten.all.dims),
}
_ALL: dict[Any, Any] = {
    aten.mean.default: aten.mean.dim,
    aten.sum.default: aten.sum.dim_IntList,
    aten.max.default: aten.amax.default,
    aten.min.default: aten.amin.default,
    aten.any.default: aten.any.dims,
    aten.all.default: aten.all.dims,
}
ITEMS: dict[Any, Rule] = {
    aten._native_batch_norm_legit_no_training.default: batch_norm_item,
    aten.native_batch_norm.default: batch_norm_item,
    aten.native_layer_norm.default: layer_norm_item,
    aten.native_group_norm.default: group_norm_item,
    **dict.fromkeys(_POOLS, max_pool_item),
    **dict.fromkeys(_EXTREMES, extreme_item),
}
RULES: dict[Any, Rule] = {
    aten.batch_norm.default: batch_norm,
    aten.layer_norm.default: layer_norm,
    **{getattr(aten, f"max_pool{n}d").default: batched(max_pool, n) for n in (1, 2, 3)},
    **{getattr(aten, f"avg_pool{n}d").default: batched(average_pool, n) for n in (1, 2, 3)},
    aten._adaptive_avg_pool2d.default: adaptive_pool,
    **dict.fromkeys(
        (
            aten._softmax.default,
            aten.softmax.int,
            aten.special_softmax.default,
            aten._log_softmax.default,
            aten.log_softmax.int,
            aten.special_log_softmax.default,
        ),
        softmax,
    ),
    **dict.fromkeys(_ALL, reduce_all),
    **dict.fromkeys((aten.sum.dim_IntList, aten.amax.default, aten.amin.default), reduce),
    aten.mean.dim: mean,
    **dict.fromkeys((aten.var.default, aten.var.dim, aten.std.default, aten.std.dim), variance),
}
