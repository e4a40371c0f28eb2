"""PyTorch's fused transformer operators, spelled out in the operators that the kernels know.

nn.TransformerEncoderLayer and nn.MultiheadAttention take them at inference (the "fast path").
"""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from torch_aio.graph.rewrite import Rule, Value, aten, bind, emit, refuse


def encoder_layer(node: Node) -> Value:
    """_transformer_encoder_layer_fwd(x, ..) -> x + attention(norm x), + feed forward."""
    bound = bind(node)
    if bound["mask"] is not None:
        refuse(node, "normalise", "the fused encoder layer has a mask")
        return None
    x = bound["src"]
    for number, block in ((1, _attended), (2, _fed_forward)):
        shape, eps = [bound["embed_dim"]], bound["eps"]
        affine = (bound[f"norm_weight_{number}"], bound[f"norm_bias_{number}"])
        if bound["norm_first"]:
            inner = emit(node.graph, node, aten.layer_norm.default, (x, shape, *affine, eps))
            x = emit(node.graph, node, aten.add.Tensor, (x, block(node, bound, inner)))
        else:
            total = emit(node.graph, node, aten.add.Tensor, (x, block(node, bound, x)))
            x = emit(node.graph, node, aten.layer_norm.default, (total, shape, *affine, eps))
    return x


def self_attention(node: Node) -> Value:
    """getitem(_native_multi_head_attention(x, x, x, ..), 0) -> linear, attention, linear."""
    call, index = node.args
    assert isinstance(call, Node)
    bound = bind(call)
    same = bound["query"] is bound["key"] is bound["value"]
    if index != 0 or bound["mask"] is not None or not same or len(call.users) > 1:
        refuse(call, "normalise", "the fused attention has a mask, three inputs, or two outputs")
        return None
    bound["num_heads"] = bound["num_head"]
    return _attended(node, bound, bound["query"])


def _attended(node: Node, bound: dict[str, Any], x: Node) -> Node:
    graph, width, heads = node.graph, bound["embed_dim"], bound["num_heads"]
    packed = emit(graph, node, aten.linear.default, (x, bound["qkv_weight"], bound["qkv_bias"]))
    parts = []
    for start in range(0, 3 * width, width):
        part = emit(graph, node, aten.slice.Tensor, (packed, 2, start, start + width))
        part = emit(graph, node, aten.unflatten.int, (part, 2, [heads, width // heads]))
        parts.append(emit(graph, node, aten.transpose.int, (part, 1, 2)))
    out = emit(graph, node, aten.scaled_dot_product_attention.default, tuple(parts))
    out = emit(graph, node, aten.transpose.int, (out, 1, 2))
    out = emit(graph, node, aten.flatten.using_ints, (out, 2, 3))
    return emit(graph, node, aten.linear.default, (out, bound["proj_weight"], bound["proj_bias"]))


def _fed_forward(node: Node, bound: dict[str, Any], x: Node) -> Node:
    first, second = (
        (bound[f"ffn_weight_{number}"], bound[f"ffn_bias_{number}"]) for number in (1, 2)
    )
    wide = emit(node.graph, node, aten.linear.default, (x, *first))
    activation = aten.gelu.default if bound["use_gelu"] else aten.relu.default
    active = emit(node.graph, node, activation, (wide,))
    return emit(node.graph, node, aten.linear.default, (active, *second))


ITEMS: dict[Any, Rule] = {aten._native_multi_head_attention.default: self_attention}
RULES: dict[Any, Rule] = {aten._transformer_encoder_layer_fwd.default: encoder_layer}
