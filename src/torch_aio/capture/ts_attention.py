"""The fused transformer operators that TorchScript records, spelled in operators of the graph.

Traced and scripted ``nn.MultiheadAttention`` and ``nn.TransformerEncoderLayer`` take PyTorch's
inference fast path: one operator with packed weights, which hides what the engine can run.
"""

from __future__ import annotations

from typing import Any

import torch

from torch_aio.capture.ts_values import DataDependent, Emitter, Value

aten = torch.ops.aten
ATTENTION_MASK, PADDING_MASK = 0, 1


def multi_head_attention(
    e: Emitter,
    query: Value,
    key: Value,
    value: Value,
    embed_dim: int,
    num_head: int,
    qkv_weight: Any,
    qkv_bias: Any,
    proj_weight: Any,
    proj_bias: Any,
    mask: Any = None,
    need_weights: bool = True,
    average_attn_weights: bool = True,
    mask_type: int | None = None,
) -> list[Any]:
    """``_native_multi_head_attention`` -> linear, attention, linear; with weights if asked for."""
    heads = [
        _heads(e, part, num_head)
        for part in _project(e, (query, key, value), embed_dim, qkv_weight, qkv_bias)
    ]
    hidden = None if mask is None else _mask(e, mask, mask_type)
    weights = None
    if need_weights:
        context, weights = _attend(e, heads, hidden)
        if average_attn_weights:
            weights = e.call(aten.mean.dim, weights, [1])
    else:
        keep = None if hidden is None else e.call(aten.logical_not.default, hidden)
        context = e.call(aten.scaled_dot_product_attention.default, *heads, keep)
    batch, length = query.spec.shape[:2]
    joined = e.call(
        aten.reshape.default,
        e.call(aten.transpose.int, context, 1, 2),
        [batch, length, embed_dim],
    )
    return [e.call(aten.linear.default, joined, proj_weight, proj_bias), weights]


def _project(
    e: Emitter, inputs: tuple[Value, Value, Value], width: int, weight: Any, bias: Any
) -> list[Value]:
    """The three projections; one product where query, key and value are the same tensor."""
    query, key, value = inputs
    if query is key and key is value:
        packed = e.call(aten.linear.default, query, weight, bias)
        return list(e.call(aten.split.Tensor, packed, width, 2))
    parts = []
    for i, x in enumerate(inputs):
        rows = e.call(aten.slice.Tensor, weight, 0, i * width, (i + 1) * width)
        shift = e.call(aten.slice.Tensor, bias, 0, i * width, (i + 1) * width)
        parts.append(e.call(aten.linear.default, x, rows, shift))
    return parts


def _heads(e: Emitter, x: Value, heads: int) -> Value:
    batch, length, width = x.spec.shape
    split = e.call(aten.view.default, x, [batch, length, heads, width // heads])
    result: Value = e.call(aten.transpose.int, split, 1, 2)
    return result


def _mask(e: Emitter, mask: Value, mask_type: int | None) -> Value:
    """True where a score is hidden, in a shape that broadcasts to [batch, heads, rows, columns]."""
    if mask.spec.dtype is not torch.bool:
        raise DataDependent("the fused attention has a mask that is not boolean")
    if mask_type == PADDING_MASK and mask.spec.ndim == 2:
        rows = e.call(aten.unsqueeze.default, mask, 1)
        result: Value = e.call(aten.unsqueeze.default, rows, 1)
        return result
    return mask


def _attend(e: Emitter, heads: list[Value], hidden: Value | None) -> tuple[Value, Value]:
    query, key, value = heads
    scaled = e.call(aten.mul.Scalar, query, float(query.spec.shape[-1]) ** -0.5)  # type: ignore[arg-type]
    scores = e.call(aten.matmul.default, scaled, e.call(aten.transpose.int, key, -2, -1))
    if hidden is not None:
        scores = e.call(aten.masked_fill.Scalar, scores, hidden, float("-inf"))
    weights = e.call(aten.softmax.int, scores, -1)
    return e.call(aten.matmul.default, weights, value), weights


def encoder_layer(
    e: Emitter,
    src: Value,
    embed_dim: int,
    num_heads: int,
    qkv_weight: Any,
    qkv_bias: Any,
    proj_weight: Any,
    proj_bias: Any,
    use_gelu: bool,
    norm_first: bool,
    eps: float,
    *rest: Any,
) -> Value:
    """``_transformer_encoder_layer_fwd`` -> norm, attention, add, norm, two linears, add.

    ``rest``: weight and bias of the two norms, of the two linears, then mask and mask type.
    """
    first, second, wide, narrow = rest[0:2], rest[2:4], rest[4:6], rest[6:8]
    mask, mask_type = (*rest[8:], None, None)[:2]
    packed = (qkv_weight, qkv_bias, proj_weight, proj_bias)

    def attend(x: Value) -> Any:
        shared = (embed_dim, num_heads, *packed, mask, False, True, mask_type)
        return multi_head_attention(e, x, x, x, *shared)[0]

    def feed_forward(x: Value) -> Any:
        hidden = e.call(aten.linear.default, x, *wide)
        active = e.call(aten.gelu.default if use_gelu else aten.relu.default, hidden)
        return e.call(aten.linear.default, active, *narrow)

    for block, norm in ((attend, first), (feed_forward, second)):
        if norm_first:
            normed = e.call(aten.layer_norm.default, src, [embed_dim], *norm, eps)
            src = e.call(aten.add.Tensor, src, block(normed))
        else:
            total = e.call(aten.add.Tensor, src, block(src))
            src = e.call(aten.layer_norm.default, total, [embed_dim], *norm, eps)
    return src


DECOMPOSED: dict[str, Any] = {
    "aten::_native_multi_head_attention": multi_head_attention,
    "aten::_transformer_encoder_layer_fwd": encoder_layer,
}
