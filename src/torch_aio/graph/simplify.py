"""Pass ``simplify``: what undoes, repeats or does nothing goes."""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule, Node

from torch_aio.graph import alias, rewrite
from torch_aio.graph.compare import is_same, same_int
from torch_aio.graph.hoist_constants import is_random
from torch_aio.graph.rewrite import (
    Rule,
    Value,
    aten,
    calls,
    dim,
    emit,
    only_user,
    operands,
    replace,
    spec,
)
from torch_aio.graph.spelling import copies, views
from torch_aio.ir.shapes import layout
from torch_aio.ir.symbols import Int


def simplify(gm: GraphModule) -> int:
    """transpose(transpose(x)) -> x; view(view(x)) -> view(x); mul(x, 1) -> x; two f(x) -> one.

    x + 0.0 stays: it makes 0.0 of -0.0.
    """
    return rewrite.apply(gm, RULES) + _merge_equal(gm) + rewrite.sweep_dead(gm.graph)


def permuted(node: Node) -> Value:
    """permute(permute(x, a), b) -> permute(x, a[b]), or x, or transpose; transpose likewise."""
    source = operands(node)[0]
    if not calls(source, aten.permute.default, aten.transpose.int):
        return _single(node)
    inner, outer = _order(source), _order(node)
    order = [inner[d] for d in outer]
    x = operands(source)[0]
    assert isinstance(x, Node)
    if order == list(range(len(order))):
        return x if alias.may_drop_view(node, x) else None
    return _emit_order(node, x, order)


def _single(node: Node) -> Value:
    """A permutation of one pair of dimensions -> transpose."""
    if calls(node, aten.transpose.int):
        return views.transpose(node)
    order, x = _order(node), operands(node)[0]
    moved = [d for d, old in enumerate(order) if d != old]
    return _emit_order(node, x, order) if len(moved) == 2 else views.permute(node)


def _order(node: Node) -> list[int]:
    ndim = spec(node).ndim
    if calls(node, aten.permute.default):
        return [dim(d, ndim) for d in operands(node)[1]]
    a, b = (dim(d, ndim) for d in operands(node)[1:3])
    order = list(range(ndim))
    order[a], order[b] = b, a
    return order


def _emit_order(node: Node, x: Value, order: list[int]) -> Node:
    moved = [d for d, old in enumerate(order) if d != old]
    if len(moved) == 2:
        return emit(node.graph, node, aten.transpose.int, (x, *moved))
    return emit(node.graph, node, aten.permute.default, (x, order))


def reshaped(node: Node) -> Value:
    """view(view(x, a), b) -> view(x, b); reshape(clone(x), b) -> reshape(x, b)."""
    source, shape = operands(node)[:2]
    changed = views.reshape(node)
    for rule in (split_first, through_linear):
        changed = rule(node) if changed is None else changed
    if changed is not None:
        return changed
    if not calls(source, aten.view.default, aten.reshape.default, aten.clone.default):
        return None
    if not calls(source, aten.view.default) and (alias.escapes(node) or only_user(source) is None):
        return None  # a copy may not become a view of what others see, nor be made twice
    inner = operands(source)[0]
    assert isinstance(inner, Node)
    target = aten.view.default
    if layout.view_stride(spec(inner), spec(node).shape) is None:
        target = aten.reshape.default
    new = emit(node.graph, node, target, (inner, shape))
    return new if is_same(spec(new), spec(node)) else None


def split_first(node: Node) -> Value:
    """view(permute(view(x, [l, b * h, d])), [b, h, l, d]) -> permute(view(x, [l, b, h, d])).

    A view that only splits dimensions is legal on any strides, so what lies before the permutation
    need not be contiguous, and both views become one.
    """
    turned, shape = operands(node)[:2]
    if not calls(turned, aten.permute.default, aten.transpose.int):
        return None
    inner = operands(turned)[0]
    groups = _split(spec(turned).shape, spec(node).shape)
    if groups is None or not calls(inner, aten.view.default, aten.reshape.default):
        return None
    place: list[int] = []
    for d in range(len(groups)):
        place += groups[_order(turned).index(d)]
    sizes = [shape[out] for out in place]
    new = emit(node.graph, node, aten.view.default, (inner, sizes))
    order = [place.index(out) for out in range(len(place))]
    new = emit(node.graph, node, aten.permute.default, (new, order))
    return new if is_same(spec(new), spec(node)) else None


def through_linear(node: Node) -> Value:
    """view(linear(x, w), [.., n]) -> linear(view(x, [.., k]), w).

    Then what follows has the shape of the product, and is computed in its registers.
    """
    source, shape = operands(node)[:2]
    if not calls(source, aten.linear.default) or only_user(source) is None:
        return None
    x, *held = operands(source)
    width, sizes = spec(x).shape[-1], spec(node).shape
    if not sizes or not isinstance(width, int) or not same_int(sizes[-1], spec(source).shape[-1]):
        return None
    if layout.view_stride(spec(x), (*sizes[:-1], width)) is None:
        return None
    seen = emit(node.graph, node, aten.view.default, (x, [*shape[:-1], width]))
    return emit(node.graph, node, aten.linear.default, (seen, *held), like=source)


def _split(old: tuple[Int, ...], new: tuple[Int, ...]) -> list[list[int]] | None:
    """For each old dimension the new ones it is split into; None if the view does more."""
    groups: list[list[int]] = []
    at = 0
    for size in old:
        group: list[int] = []
        total: Int = 1
        while at < len(new) and not (group and same_int(total, size)):
            group.append(at)
            total = total * new[at]
            at += 1
        if not group or not same_int(total, size):
            return None
        groups.append(group)
    splits = at == len(new) and len(new) > len(old)
    return groups if splits else None


def squeezed(node: Node) -> Value:
    """squeeze(unsqueeze(x, d), [d]) -> x; with a permutation between -> permute(x)."""
    source = operands(node)[0]
    if calls(source, aten.permute.default, aten.transpose.int) and len(operands(node)[1]) == 1:
        return _squeezed_permutation(node, source)
    if calls(source, aten.unsqueeze.default):
        x = operands(source)[0]
        assert isinstance(x, Node)
        if is_same(spec(x), spec(node)) and alias.may_drop_view(node, x):
            at = dim(operands(source)[1], spec(source).ndim)
            if list(operands(node)[1]) == [at]:
                return x
    return views.squeeze(node)


def _squeezed_permutation(node: Node, turned: Node) -> Value:
    raised, order = operands(turned)[0], _order(turned)
    if not calls(raised, aten.unsqueeze.default):
        return None
    gone = dim(operands(node)[1][0], len(order))
    at = dim(operands(raised)[1], len(order))
    if order[gone] != at:
        return None
    rest = [d - (d > at) for d in order if d != at]
    return emit(node.graph, node, aten.permute.default, (operands(raised)[0], rest))


def cloned(node: Node) -> Value:
    """clone(view of clone(x)) -> clone(view of x), for views that any layout allows."""
    chain, inner = [], operands(node)[0]
    while calls(inner, *_LAYOUT_FREE):
        chain.append(inner)
        inner = operands(inner)[0]
    dense = node.kwargs.get("memory_format") is not None
    if not dense or not calls(inner, aten.clone.default):
        return copies.clone(node)
    value = operands(inner)[0]
    for view in reversed(chain):
        value = emit(
            node.graph, node, view.target, (value, *operands(view)[1:]), view.kwargs, like=view
        )
    return emit(node.graph, node, aten.clone.default, (value,), node.kwargs)


def times_one(node: Node) -> Value:
    """mul(x, 1), div(x, 1), sub(x, 0) -> x where the dtype stays (exact: NaN, -0.0 as well)."""
    x, y = operands(node)[:2]
    neutral = 0 if calls(node, aten.sub.Tensor) else 1
    if isinstance(y, Node) or y != neutral or not isinstance(x, Node) or node.kwargs:
        return None
    if not is_same(spec(x), spec(node)) or not alias.may_drop_copy(node, x):
        return None
    return x


def _merge_equal(gm: GraphModule) -> int:
    """a = f(x); b = f(x) -> b reads a (pure calls, unless the caller gets both)."""
    if any(alias.is_write(n) and n.users for n in gm.graph.nodes):
        return 0
    seen: dict[Any, Node] = {}
    count = 0
    for node in list(gm.graph.nodes):
        if node.op not in ("call_function", "get_attr") or alias.is_write(node) or is_random(node):
            continue
        key = (node.op, node.target, _key(operands(node)), _key(node.kwargs))
        first = seen.setdefault(key, node)
        if first is not node and is_same(spec(first), spec(node)) and _may_share(first, node):
            count += replace(node, first)
    return count


def _may_share(first: Node, node: Node) -> bool:
    return node.op == "get_attr" or not (alias.escapes(first) and alias.escapes(node))


def _key(value: Any) -> Any:
    """A hashable copy of arguments in which 1, 1.0 and True differ."""
    if isinstance(value, (list, tuple)):
        return tuple(_key(v) for v in value)
    if isinstance(value, dict):
        return tuple(sorted((k, _key(v)) for k, v in value.items()))
    if isinstance(value, slice):
        return ("slice", _key(value.start), _key(value.stop), _key(value.step))
    return value if isinstance(value, Node) else (type(value).__name__, repr(value))


_LAYOUT_FREE = (
    aten.transpose.int,
    aten.permute.default,
    aten.unsqueeze.default,
    aten.squeeze.dims,
    aten.slice.Tensor,
    aten.select.int,
    aten.expand.default,
)
RULES: dict[Any, Rule] = {
    **copies.RULES,
    aten.permute.default: permuted,
    aten.transpose.int: permuted,
    aten.view.default: reshaped,
    aten.reshape.default: reshaped,
    aten.squeeze.dims: squeezed,
    aten.clone.default: cloned,
    aten.mul.Tensor: times_one,
    aten.div.Tensor: times_one,
    aten.sub.Tensor: times_one,
}
