"""One spelling for copies and casts; copies that copy nothing go."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from torch_aio.graph import alias
from torch_aio.graph.compare import same_strides
from torch_aio.graph.rewrite import Rule, Value, aten, bind, emit, spec, tensor


def same_value(node: Node) -> Value:
    """alias(x), detach(x), lift_fresh(x), dropout(x, p, train=False) -> x."""
    source = node.args[0]
    assert isinstance(source, Node)
    return source if alias.may_drop_view(node, source) else None


def dropout(node: Node) -> Value:
    """dropout(x, p, False) -> x; native_dropout's getitem is a door's business."""
    probability, train = node.args[1:3]
    return None if train and probability != 0 else same_value(node)


def clone(node: Node) -> Value:
    """clone(x), contiguous(x) -> x where that lies in memory alike, else clone(x, contiguous)."""
    source = node.args[0]
    assert isinstance(source, Node)
    return _copied(node, source)


def _copied(node: Node, source: Node) -> Value:
    if same_strides(spec(node), spec(source)):
        copies = node.target is aten.clone.default or node.target is aten._to_copy.default
        allowed = alias.may_drop_copy if copies else alias.may_drop_view
        return source if allowed(node, source) else None
    if node.target is aten.clone.default:
        return None
    kind = bind(node).get("memory_format", torch.contiguous_format)
    return emit(node.graph, node, aten.clone.default, (source,), {"memory_format": kind})


def cast(node: Node) -> Value:
    """to.*(x, ..), type_as, float(), _to_copy(x, dtype, device, ..) -> x | _to_copy(x, dtype=d)."""
    source = node.args[0]
    assert isinstance(source, Node)
    old, new = tensor(source), tensor(node)
    if old is None or new is None:
        return None
    if old.dtype == new.dtype:
        return _copied(node, source)
    kwargs: dict[str, Value] = {"dtype": new.dtype}
    kind = bind(node).get("memory_format")
    if kind not in (None, torch.preserve_format):
        kwargs["memory_format"] = kind
    if node.target is aten._to_copy.default and dict(node.kwargs) == kwargs:
        return None
    return emit(node.graph, node, aten._to_copy.default, (source,), kwargs)


RULES: dict[Any, Rule] = {
    **dict.fromkeys(
        (aten.alias.default, aten.detach.default, aten.lift_fresh.default, aten.positive.default),
        same_value,
    ),
    **dict.fromkeys(
        (
            aten.dropout.default,
            aten.feature_dropout.default,
            aten.alpha_dropout.default,
            aten.feature_alpha_dropout.default,
        ),
        dropout,
    ),
    **dict.fromkeys(
        (aten.clone.default, aten.contiguous.default, aten.lift_fresh_copy.default), clone
    ),
    **dict.fromkeys(
        (
            aten._to_copy.default,
            aten.to.dtype,
            aten.to.device,
            aten.to.dtype_layout,
            aten.to.other,
            aten.type_as.default,
            aten._autocast_to_full_precision.default,
            aten._autocast_to_reduced_precision.default,
        ),
        cast,
    ),
}
