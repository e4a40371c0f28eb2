"""One spelling for convolutions, matrix products and attention."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from torch_aio.graph.rewrite import Rule, Value, aten, bind, calls, dim, emit, spec, tensor
from torch_aio.graph.spelling.images import batched

_CONV = {3: aten.conv1d.default, 4: aten.conv2d.default, 5: aten.conv3d.default}

_PADDED = {3: aten.conv1d.padding, 4: aten.conv2d.padding, 5: aten.conv3d.padding}


def convolution(node: Node) -> Value:
    """_convolution(x, w, b, ..) -> conv1d/2d/3d(x, w, b, s, p, d, g); transposed -> convolution."""
    bound = bind(node)
    rank = spec(bound["weight"]).ndim
    x, w, b = bound["input"], bound["weight"], bound["bias"]
    sizes = [_spread(bound[key], rank - 2) for key in ("stride", "padding", "dilation")]
    groups = bound["groups"]
    if not bound.get("transposed", False):
        return emit(node.graph, node, _CONV[rank], (x, w, b, *sizes, groups))
    if node.target is aten.convolution.default:
        return None
    extra = _spread(bound["output_padding"], rank - 2)
    args = (x, w, b, *sizes, True, extra, groups)
    return emit(node.graph, node, aten.convolution.default, args)


def conv(node: Node) -> Value:
    """conv2d(x, w) -> conv2d(x, w, b, [s, s], [p, p], [d, d], g), "same" as numbers where even.

    TorchScript says _convolution_mode for a convolution whose padding is a word.
    """
    bound = bind(node)
    w = spec(bound["weight"])
    rank = w.ndim - 2
    dilation = _spread(bound["dilation"], rank)
    padding = bound["padding"]
    if isinstance(padding, str):
        spans = [d * (k - 1) for d, k in zip(dilation, w.shape[2:], strict=True)]
        if padding == "same" and any(span % 2 for span in spans):
            args = (*node.args[:4], padding, *node.args[5:])
            is_mode = node.target is aten._convolution_mode.default
            return emit(node.graph, node, _PADDED[w.ndim], args) if is_mode else None
        padding = [span // 2 if padding == "same" else 0 for span in spans]
    args = (
        bound["input"],
        bound["weight"],
        bound["bias"],
        _spread(bound["stride"], rank),
        _spread(padding, rank),
        dilation,
        bound["groups"],
    )
    if tuple(node.args) == args and not node.kwargs:
        return None
    return emit(node.graph, node, _CONV[w.ndim], args)


def conv_transpose(node: Node) -> Value:
    """conv_transpose2d(x, w, b, ..) -> convolution(.., transposed=True, ..)."""
    bound = bind(node)
    rank = spec(bound["weight"]).ndim - 2
    keys = ("stride", "padding", "dilation", "output_padding")
    s, p, d, extra = (_spread(bound[key], rank) for key in keys)
    args = (bound["input"], bound["weight"], bound["bias"], s, p, d, True, extra, bound["groups"])
    return emit(node.graph, node, aten.convolution.default, args)


def _spread(value: Value, rank: int) -> list[Value]:
    values = [value] if isinstance(value, int) else list(value)
    return values * rank if len(values) == 1 else values


def transposed(value: Value) -> Node | None:
    """``w`` where ``value`` is ``transpose(w, -2, -1)`` of a matrix, else None."""
    found = tensor(value)
    if found is None or found.ndim != 2:
        return None
    if calls(value, aten.t.default, aten.transpose.int, aten.numpy_T.default, aten.mT.default):
        return value.args[0]  # type: ignore[no-any-return]
    if calls(value, aten.permute.default):
        return value.args[0] if [dim(d, 2) for d in value.args[1]] == [1, 0] else None
    return None


def _weight(node: Node, matrix: Node) -> Node:
    """The weight ``[n, k]`` whose transpose is ``matrix``."""
    found = transposed(matrix)
    return found or emit(node.graph, node, aten.transpose.int, (matrix, 0, 1))


def _is_weight(value: Node) -> bool:
    return value.op == "get_attr" or (transposed(value) is not None)


def matmul(node: Node) -> Value:
    """matmul(x, w.t) -> linear(x, w); matmul(x, constant matrix) -> linear; mm, bmm -> matmul."""
    x, y = node.args
    assert isinstance(x, Node)
    assert isinstance(y, Node)
    if spec(y).ndim == 2 and spec(x).ndim >= 2 and _is_weight(y):
        return emit(node.graph, node, aten.linear.default, (x, _weight(node, y)))
    if node.target is aten.matmul.default:
        return None
    return emit(node.graph, node, aten.matmul.default, (x, y))


def addmm(node: Node) -> Value:
    """addmm(b, x, w) -> linear(x, w.t, b) where b is a row; else add(b, matmul(x, w)), scaled."""
    bound = bind(node)
    bias, x, y = (bound[key] for key in ("self", "mat1", "mat2"))
    alpha, beta = bound["alpha"], bound["beta"]
    columns = spec(y).shape[1]
    if (alpha, beta) == (1, 1) and spec(bias).shape == (columns,):
        return emit(node.graph, node, aten.linear.default, (x, _weight(node, y), bias))
    return _sum_of_product(node, bias, x, y, alpha, beta)


def baddbmm(node: Node) -> Value:
    """baddbmm(c, x, y) -> add(beta * c, alpha * matmul(x, y))."""
    bound = bind(node)
    keys = ("self", "batch1", "batch2", "alpha", "beta")
    return _sum_of_product(node, *(bound[key] for key in keys))


def _sum_of_product(node: Node, c: Value, x: Value, y: Value, alpha: Any, beta: Any) -> Value:
    graph = node.graph
    out: Value = emit(graph, node, aten.matmul.default, (x, y))
    if alpha != 1:
        out = emit(graph, node, aten.mul.Tensor, (out, alpha))
    if beta == 0:
        return out  # c is ignored, NaN included
    if beta != 1:
        c = emit(graph, node, aten.mul.Tensor, (c, beta))
    return emit(graph, node, aten.add.Tensor, (out, c))


def linear(node: Node) -> Value:
    """linear(x, w, None) -> linear(x, w)."""
    bound = bind(node)
    kept = tuple(value for value in (bound["input"], bound["weight"], bound["bias"]) if value)
    if tuple(node.args) == kept and not node.kwargs:
        return None
    return emit(node.graph, node, aten.linear.default, kept)


def attention_output(node: Node) -> Value:
    """getitem(_scaled_dot_product_flash_attention_for_cpu(q, k, v, ..), 0) -> sdpa(q, k, v, ..)."""
    call, index = node.args
    assert isinstance(call, Node)
    bound = bind(call)
    if index != 0 or bound["dropout_p"] != 0:
        return None
    q, k, v = (bound[key] for key in ("query", "key", "value"))
    kwargs = {} if bound["scale"] is None else {"scale": bound["scale"]}
    args = (q, k, v, bound["attn_mask"], 0.0, bound["is_causal"])
    return emit(node.graph, node, aten.scaled_dot_product_attention.default, args, kwargs)


def attention(node: Node) -> Value:
    """sdpa(q, k, v, ..) -> sdpa(q, k, v, mask, 0.0, causal, scale=.., enable_gqa=..)."""
    bound = bind(node)
    keys = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    args = tuple(bound[key] for key in keys)
    kwargs = {"scale": bound["scale"]} if bound["scale"] is not None else {}
    if bound["enable_gqa"]:
        kwargs["enable_gqa"] = True
    if tuple(node.args) == args and dict(node.kwargs) == kwargs:
        return None
    return emit(node.graph, node, node.target, args, kwargs)


ITEMS: dict[Any, Rule] = {
    aten._scaled_dot_product_flash_attention_for_cpu.default: attention_output,
}
RULES: dict[Any, Rule] = {
    aten._convolution.default: convolution,
    aten._convolution.deprecated: convolution,
    aten.convolution.default: convolution,
    **{op: batched(conv, n - 2) for n, op in (*_CONV.items(), *_PADDED.items())},
    aten._convolution_mode.default: conv,
    aten.conv_transpose1d.default: batched(conv_transpose, 1),
    aten.conv_transpose2d.input: batched(conv_transpose, 2),
    aten.conv_transpose3d.input: batched(conv_transpose, 3),
    **dict.fromkeys((aten.matmul.default, aten.mm.default, aten.bmm.default), matmul),
    aten.addmm.default: addmm,
    aten.baddbmm.default: baddbmm,
    aten.linear.default: linear,
    aten.scaled_dot_product_attention.default: attention,
}
