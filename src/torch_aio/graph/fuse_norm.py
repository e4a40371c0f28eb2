"""Pass ``fuse_norm``: layer norm and rms norm spelled out become one operator."""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx import GraphModule, Node

from torch_aio.graph import match
from torch_aio.graph.compare import same_sizes
from torch_aio.graph.rewrite import (
    Value,
    aten,
    calls,
    emit,
    only_user,
    operands,
    refuse,
    replace,
    spec,
    sweep_dead,
    tensor,
)

_NAME = "fuse_norm"


@dataclass(frozen=True)
class Norm:
    """``out = (x - mean?) * rsqrt(moment + eps)`` over the last ``count`` dimensions of x."""

    out: Node
    x: Node
    count: int
    eps: float
    centred: bool


def fuse_norm(gm: GraphModule) -> int:
    """(x - mean(x)) * rsqrt(mean((x - mean(x))^2) + eps) * w + b -> layer_norm(x, .., w, b, eps).

    Also divided by the square root, or with var(x). x * rsqrt(mean(x * x) + eps) * w -> rms_norm.
    """
    count = 0
    for node in list(gm.graph.nodes):
        if node._erased or not calls(node, aten.mul.Tensor, aten.div.Tensor):
            continue
        found = _norm(node)
        if isinstance(found, str):
            refuse(node, _NAME, found)
        elif found is not None:
            count += _fuse(found)
    sweep_dead(gm.graph)
    return count


def _norm(node: Node) -> Norm | str | None:
    """The norm that ``node`` ends, why it is none after all, or None."""
    for value, moment, eps in _over_deviation(node):
        centred = match.variance_over_last(moment)
        mean = match.mean_over_last(moment)
        if centred is not None and _is_centred(value, centred[0], centred[1]):
            return _checked(Norm(node, centred[0], centred[1], eps, centred=True))
        if mean is None or not _is_square(mean[0], value):
            continue
        source = _source_of_difference(value, mean[1])
        if source is not None:
            return _checked(Norm(node, source, mean[1], eps, centred=True))
        return _checked(Norm(node, value, mean[1], eps, centred=False))
    return None


def _over_deviation(node: Node) -> list[tuple[Node, Node, float]]:
    """``(value, moment, eps)`` where node is value * rsqrt(moment + eps) or value / sqrt(..)."""
    if calls(node, aten.div.Tensor):
        pairs, root = [operands(node)], aten.sqrt.default
    else:
        pairs, root = [operands(node), operands(node)[::-1]], aten.rsqrt.default
    found = []
    for value, deviation in pairs:
        inner = match.plus(operands(deviation)[0]) if calls(deviation, root) else None
        if inner is not None and isinstance(value, Node):
            found.append((value, *inner))
    return found


def _is_square(value: Value, of: Node) -> bool:
    return calls(value, aten.mul.Tensor) and all(operand is of for operand in operands(value))


def _source_of_difference(value: Node, count: int) -> Node | None:
    """x where ``value`` is x - mean(x) over the last ``count`` dimensions."""
    if not calls(value, aten.sub.Tensor):
        return None
    x = operands(value)[0]
    return x if match.mean_over_last(operands(value)[1]) == (x, count) else None


def _is_centred(value: Node, x: Node, count: int) -> bool:
    return _source_of_difference(value, count) is x


def _checked(norm: Norm) -> Norm | str:
    shape = spec(norm.x).shape[-norm.count :]
    if not all(isinstance(size, int) for size in shape):
        return "the normalised sizes are not known"
    if not spec(norm.x).dtype.is_floating_point or spec(norm.out).dtype != spec(norm.x).dtype:
        return "the norm is not computed in the dtype of its input"
    return norm


def _fuse(norm: Norm) -> bool:
    shape = list(spec(norm.x).shape[-norm.count :])
    end, weight = _followed(norm.out, aten.mul.Tensor, shape)
    bias = None
    if norm.centred:
        end, bias = _followed(end, aten.add.Tensor, shape)
        args = (norm.x, shape, weight, bias, norm.eps, False)
        return replace(end, emit(end.graph, end, aten.layer_norm.default, args))
    new = emit(end.graph, end, aten.rms_norm.default, (norm.x, shape, weight, norm.eps))
    return replace(end, new)


def _followed(node: Node, target: object, shape: list[int]) -> tuple[Node, Node | None]:
    """The next node and its operand where ``node`` goes only into ``target`` with ``shape``."""
    user = only_user(node)
    if user is None or not calls(user, target):
        return node, None
    operand = match.other(user, node)
    found = tensor(operand)
    if (
        found is None
        or not same_sizes(found.shape, tuple(shape))
        or found.dtype != spec(node).dtype
    ):
        return node, None
    return user, operand
