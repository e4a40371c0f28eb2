"""Pass ``fold_batch_norm``: batch norm at inference is an affine map, folded where it can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.fx import GraphModule, Node

from torch_aio.graph import hoist_constants
from torch_aio.graph.rewrite import (
    Value,
    aten,
    bind,
    calls,
    emit,
    only_user,
    refuse,
    replace,
    spec,
    sweep_dead,
)

_CONVS = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
_NAME = "fold_batch_norm"
_PARAMETERS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Affine:
    """``y = x * scale + shift`` for each channel; both ``[channels]``, as nodes."""

    scale: Node
    shift: Node


def fold_batch_norm(gm: GraphModule) -> int:
    """batch_norm(conv(x, w, b)) -> conv(x, w * scale, b * scale + shift), scale and shift constant.

    Also linear; conv(batch_norm(x)) without padding; a batch_norm alone -> x * scale + shift.
    """
    count = 0
    for node in list(gm.graph.nodes):
        if not calls(node, aten.batch_norm.default) or node._erased:
            continue
        bound = bind(node)
        if bound["training"]:
            refuse(node, _NAME, "batch norm in training mode")
        elif not all(_is_constant(bound[k]) for k in _PARAMETERS):
            refuse(node, _NAME, "the parameters of this batch norm are not constants")
        elif any(spec(bound[k]).dtype != spec(node).dtype for k in _PARAMETERS if bound[k]):
            refuse(node, _NAME, "the parameters of this batch norm are of another dtype")
        else:
            count += _fold(node, bound)
    sweep_dead(gm.graph)
    return count


def _is_constant(value: Value) -> bool:
    return value is None or hoist_constants.is_constant(value)


def _fold(node: Node, bound: dict[str, Any]) -> bool:
    affine = _affine(node, bound)
    source = bound["input"]
    reason = _why_not_before(source)
    if reason is None:
        return replace(node, _into_producer(node, source, affine))
    consumer = only_user(node)
    after = _why_not_after(node, consumer)
    if after is None and consumer is not None:
        return replace(consumer, _into_consumer(consumer, source, affine))
    refuse(node, _NAME, f"{reason}; {after}")
    return replace(node, _alone(node, source, affine))


def _affine(node: Node, bound: dict[str, Any]) -> Affine:
    """scale = weight / sqrt(var + eps); shift = bias - mean * scale."""
    graph = node.graph
    variance = emit(graph, node, aten.add.Tensor, (bound["running_var"], bound["eps"]))
    deviation = emit(graph, node, aten.sqrt.default, (variance,))
    scale = emit(graph, node, aten.reciprocal.default, (deviation,))
    if bound["weight"] is not None:
        scale = emit(graph, node, aten.mul.Tensor, (bound["weight"], scale))
    shift = emit(graph, node, aten.mul.Tensor, (bound["running_mean"], scale))
    if bound["bias"] is None:
        return Affine(scale, emit(graph, node, aten.neg.default, (shift,)))
    return Affine(scale, emit(graph, node, aten.sub.Tensor, (bound["bias"], shift)))


def _why_not_before(source: Node) -> str | None:
    """Why the affine map cannot go into the operator that computes its input, or None."""
    if not calls(source, *_CONVS, aten.linear.default, aten.convolution.default):
        return "the input of this batch norm is not a convolution or linear"
    if len(source.users) > 1:
        return "the convolution's result is read by others too"
    if calls(source, aten.linear.default) and spec(source).ndim != 2:
        return "the channels of this batch norm are not those of the linear"
    bound = bind(source)
    if bound.get("transposed") and bound["groups"] != 1:
        return "a transposed convolution in groups"
    if not _is_constant(bound["weight"]) or not _is_constant(bound["bias"]):
        return "the weight before this batch norm is not a constant"
    return None


def _into_producer(node: Node, source: Node, affine: Affine) -> Node:
    bound = bind(source)
    weight, bias = bound["weight"], bound["bias"]
    axis = 1 if bound.get("transposed") else 0
    factor = _along(node, affine.scale, axis, spec(weight).ndim)
    scaled = emit(node.graph, node, aten.mul.Tensor, (weight, factor), like=source)
    shift = affine.shift
    if bias is not None:
        bias = emit(node.graph, node, aten.mul.Tensor, (bias, affine.scale), like=source)
        shift = emit(node.graph, node, aten.add.Tensor, (bias, shift), like=source)
    scaled.meta["name"] = weight.meta.get("name", "")
    args = (source.args[0], scaled, shift, *source.args[3:])
    return emit(node.graph, node, source.target, args, like=source)


def _why_not_after(node: Node, consumer: Node | None) -> str | None:
    """Why the affine map cannot go into the only reader of its result, or None."""
    if consumer is None or not calls(consumer, *_CONVS) or consumer.args[0] is not node:
        return "its result does not go into one convolution only"
    bound = bind(consumer)
    if any(bound["padding"]):
        return "the convolution after it pads with zeros, which the shift would change"
    if bound["groups"] != 1:
        return "the convolution after it has groups"
    if not _is_constant(bound["weight"]) or not _is_constant(bound["bias"]):
        return "the weight after it is not a constant"
    return None


def _into_consumer(consumer: Node, source: Node, affine: Affine) -> Node:
    graph, bound = consumer.graph, bind(consumer)
    weight, bias = bound["weight"], bound["bias"]
    ndim = spec(weight).ndim
    factor, offset = (_along(consumer, v, 1, ndim) for v in (affine.scale, affine.shift))
    scaled = emit(graph, consumer, aten.mul.Tensor, (weight, factor))
    moved = emit(graph, consumer, aten.mul.Tensor, (weight, offset))
    shift = emit(graph, consumer, aten.sum.dim_IntList, (moved, list(range(1, ndim))))
    if bias is not None:
        shift = emit(graph, consumer, aten.add.Tensor, (shift, bias))
    scaled.meta["name"] = weight.meta.get("name", "")
    args = (source, scaled, shift, *consumer.args[3:])
    return emit(graph, consumer, consumer.target, args)


def _alone(node: Node, source: Node, affine: Affine) -> Node:
    ndim = spec(source).ndim
    factor, offset = (_along(node, v, min(1, ndim - 1), ndim) for v in (affine.scale, affine.shift))
    scaled = emit(node.graph, node, aten.mul.Tensor, (source, factor))
    return emit(node.graph, node, aten.add.Tensor, (scaled, offset))


def _along(node: Node, vector: Node, axis: int, ndim: int) -> Node:
    """A ``[channels]`` vector shaped to broadcast along ``axis`` of ``ndim`` dimensions."""
    shape = [-1 if d == axis else 1 for d in range(axis, ndim)]
    return emit(node.graph, node, aten.view.default, (vector, shape))
