"""One spelling for tensors made from numbers, for sizes, and for joining tensors."""

from __future__ import annotations

import operator
from typing import Any

from torch.fx import Node

from torch_aio.graph.compare import is_same
from torch_aio.graph.rewrite import Rule, Value, aten, bind, dim, emit, spec, tensor

_FILLED = {"zeros": 0, "ones": 1}


def filled(node: Node) -> Value:
    """zeros(s), ones_like(x), new_full(x, s, v), scalar_tensor(v) .. -> full(sizes, v, dtype=d)."""
    out = tensor(node)
    sizes = _sizes(node, out)
    if out is None or sizes is None:
        return None
    args, kwargs = (sizes, _fill(node)), {"dtype": out.dtype}
    if node.target is aten.full.default and node.args == args and dict(node.kwargs) == kwargs:
        return None
    new = emit(node.graph, node, aten.full.default, args, kwargs)
    return new if is_same(spec(new), out) else None


def _sizes(node: Node, out: Any) -> list[Value] | None:
    if out is not None and all(isinstance(size, int) for size in out.shape):
        return list(out.shape)
    return bind(node).get("size")


def _fill(node: Node) -> Value:
    bound = bind(node)
    if "fill_value" in bound or "s" in bound:
        return bound.get("fill_value", bound.get("s"))
    return next(value for name, value in _FILLED.items() if name in str(node.target))


def arange(node: Node) -> Value:
    """arange(end), arange(start, end) -> arange(start, end, step, dtype=d)."""
    bound, out = bind(node), tensor(node)
    if out is None:
        return None
    args = (bound.get("start", 0), bound["end"], bound.get("step", 1))
    kwargs = {"dtype": out.dtype}
    if node.target is aten.arange.start_step and node.args == args and dict(node.kwargs) == kwargs:
        return None
    return emit(node.graph, node, aten.arange.start_step, args, kwargs)


def number(node: Node) -> Value:
    """size(x, 0), sym_size, numel, operator.mul(a, b) .. -> the number, where it is one."""
    value = spec(node)
    if isinstance(value, (int, float)):
        return value
    if node.target is aten.size.int:
        return emit(node.graph, node, aten.sym_size.int, node.args)
    return None


def stack(node: Node) -> Value:
    """stack([x, ..], d) -> cat([unsqueeze(x, d), ..], d)."""
    bound = bind(node)
    axis = dim(bound["dim"], spec(node).ndim)
    parts = [emit(node.graph, node, aten.unsqueeze.default, (x, axis)) for x in bound["tensors"]]
    return emit(node.graph, node, aten.cat.default, (parts, axis))


def cat(node: Node) -> Value:
    """cat([x, [], ..], -1) -> cat([x, ..], d >= 0); of one -> clone (a copy, as cat is)."""
    bound = bind(node)
    axis = dim(bound["dim"], spec(node).ndim)
    parts = [x for x in bound["tensors"] if not _is_legacy_empty(x)]
    if len(parts) == 1 and spec(parts[0]).dtype == spec(node).dtype:
        return emit(node.graph, node, aten.clone.default, (parts[0],))
    same = node.target is aten.cat.default and node.args == (parts, axis) and not node.kwargs
    return None if same or not parts else emit(node.graph, node, aten.cat.default, (parts, axis))


def _is_legacy_empty(value: Node) -> bool:
    """A 1-d tensor without elements, which cat ignores (unless all are)."""
    return spec(value).ndim == 1 and isinstance(size := spec(value).shape[0], int) and size == 0


def embedding(node: Node) -> Value:
    """embedding(w, i, padding, scale, sparse) -> embedding(w, i): the rest matters to gradients."""
    if len(node.args) == 2 and not node.kwargs:
        return None
    return emit(node.graph, node, node.target, node.args[:2])


_NUMBERS: tuple[Any, ...] = (
    aten.size.int,
    aten.sym_size.int,
    aten.sym_stride.int,
    aten.sym_numel.default,
    aten.numel.default,
    aten.dim.default,
    *(getattr(operator, name) for name in "add sub mul floordiv mod neg truediv pow".split()),
    *(getattr(operator, name) for name in "eq ne lt le gt ge not_ and_ or_".split()),
    max,
    min,
)
_MADE: tuple[Any, ...] = (
    aten.zeros.default,
    aten.ones.default,
    aten.full.default,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
    aten.scalar_tensor.default,
)
RULES: dict[Any, Rule] = {
    **dict.fromkeys(_MADE, filled),
    **dict.fromkeys((aten.arange.default, aten.arange.start, aten.arange.start_step), arange),
    **dict.fromkeys(_NUMBERS, number),
    aten.stack.default: stack,
    aten.cat.default: cat,
    aten.embedding.default: embedding,
}
