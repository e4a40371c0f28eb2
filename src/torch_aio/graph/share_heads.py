"""Pass ``share_heads``: attention whose keys and values are repeated reads them where they are."""

from __future__ import annotations

from torch.fx import GraphModule, Node

from torch_aio.graph.compare import same_int, same_sizes
from torch_aio.graph.rewrite import (
    Value,
    aten,
    bind,
    calls,
    dim,
    emit,
    operands,
    refuse,
    replace,
    spec,
    sweep_dead,
)
from torch_aio.ir.symbols import Int

_NAME = "share_heads"


def share_heads(gm: GraphModule) -> int:
    """sdpa(q, repeated k, repeated v) -> sdpa(q, k, v, enable_gqa=True).

    repeated k: reshape(expand(unsqueeze(k, 2), [b, h, r, l, d]), [b, h * r, l, d]), as models with
    grouped heads spell it.
    """
    count = 0
    for node in list(gm.graph.nodes):
        if not calls(node, aten.scaled_dot_product_attention.default):
            continue
        bound = bind(node)
        key, value = _repeated(bound["key"]), _repeated(bound["value"])
        if key is None and value is None:
            continue
        if key is None or value is None or not same_int(key[1], value[1]) or bound["enable_gqa"]:
            refuse(node, _NAME, "keys and values are not repeated alike")
            continue
        names = ("attn_mask", "dropout_p", "is_causal")
        args = (bound["query"], key[0], value[0], *(bound[name] for name in names))
        kwargs = {"scale": bound["scale"], "enable_gqa": True}
        count += replace(node, emit(node.graph, node, node.target, args, kwargs))
    sweep_dead(gm.graph)
    return count


def _repeated(value: Value) -> tuple[Node, Int] | None:
    """``(x, times)`` where each head of ``x`` stands ``times`` times, one after the other."""
    if not calls(value, aten.reshape.default, aten.view.default):
        return None
    expanded = operands(value)[0]
    raised = operands(expanded)[0] if calls(expanded, aten.expand.default) else None
    if not calls(raised, aten.unsqueeze.default) or not isinstance(raised, Node):
        return None
    x, ndim = operands(raised)[0], spec(raised).ndim
    if ndim != 5 or dim(operands(raised)[1], ndim) != 2:
        return None
    batch, heads, length, width = spec(x).shape
    times = spec(expanded).shape[2]
    if not same_sizes(spec(value).shape, (batch, heads * times, length, width)):
        return None
    return x, times
