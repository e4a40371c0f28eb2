"""Pass ``normalise``: whatever a front door spelled, one spelling for each meaning."""

from __future__ import annotations

import operator
from typing import Any

from torch.fx import GraphModule, Node

from torch_aio.graph import functional, rewrite
from torch_aio.graph.rewrite import Rule, Value
from torch_aio.graph.spelling import (
    contraction,
    copies,
    creation,
    einsum,
    elementwise,
    images,
    lookup,
    norms,
    padding,
    recurrent,
    rope,
    transformer,
    views,
)

ITEMS: dict[Any, Rule] = {
    **contraction.ITEMS,
    **norms.ITEMS,
    **recurrent.ITEMS,
    **transformer.ITEMS,
    **elementwise.ITEMS,
    **lookup.ITEMS,
}


def item(node: Node) -> Value:
    """getitem(op with several outputs, 0) -> the op with one, where only that one is read."""
    call = node.args[0]
    rule = ITEMS.get(call.target) if isinstance(call, Node) else None
    if rule is None:
        return views.getitem(node)
    return rule(node)


RULES: dict[Any, Rule] = {
    **views.RULES,
    **copies.RULES,
    **elementwise.RULES,
    **contraction.RULES,
    **einsum.RULES,
    **norms.RULES,
    **padding.RULES,
    **images.RULES,
    **lookup.RULES,
    **recurrent.RULES,
    **rope.RULES,
    **transformer.RULES,
    **creation.RULES,
    operator.getitem: item,
}


def normalise(gm: GraphModule) -> int:
    """Every spelling of an operator -> its canonical overload; in place -> functional.

    relu_(x) -> relu(x); _convolution(..) -> conv2d; addmm(b, x, t(w)) -> linear(x, w, b);
    native_layer_norm + getitem -> layer_norm; size(x, 0) -> 3; assertions go.
    """
    rewrite.unify(gm)
    count = functional.functionalise(gm) + _drop_assertions(gm)
    return count + rewrite.apply(gm, RULES)


def _drop_assertions(gm: GraphModule) -> int:
    """_assert_*(..), sym_constrain_range(..) -> nothing: the doors' guards hold them."""
    found = [n for n in gm.graph.nodes if n.op == "call_function" and _is_assertion(n)]
    for node in found:
        gm.graph.erase_node(node)
    return len(found)


def _is_assertion(node: Node) -> bool:
    name = getattr(node.target, "__name__", str(node.target))
    return not node.users and ("_assert_" in name or name.startswith("sym_constrain_range"))
