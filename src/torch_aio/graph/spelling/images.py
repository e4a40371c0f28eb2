"""One spelling for operators on images: shuffles as views, instance norm, what has no batch."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from torch_aio.graph.rewrite import Rule, Value, aten, bind, callee, emit, refuse, spec


def _image(node: Node) -> tuple[Node, int]:
    """The image, and the number that says how it is shuffled."""
    image, number = node.args
    assert isinstance(image, Node)
    assert isinstance(number, int)
    return image, number


def pixel_shuffle(node: Node) -> Value:
    """pixel_shuffle(x, r) -> [.., c, r, r, h, w] permuted to [.., c, h, r, w, r], merged."""
    x, factor = _image(node)
    *outer, channels, height, width = spec(x).shape
    split = [*outer, channels // (factor * factor), factor, factor, height, width]
    merged = [*outer, channels // (factor * factor), height * factor, width * factor]
    return _rearranged(node, split, (0, 3, 1, 4, 2), merged)


def pixel_unshuffle(node: Node) -> Value:
    """pixel_unshuffle(x, r) -> [.., c, h, r, w, r] permuted to [.., c, r, r, h, w], merged."""
    x, factor = _image(node)
    *outer, channels, height, width = spec(x).shape
    if 0 in spec(x).shape:
        refuse(node, "normalise", "eager returns nothing as it is")
        return None
    split = [*outer, channels, height // factor, factor, width // factor, factor]
    merged = [*outer, channels * factor * factor, height // factor, width // factor]
    return _rearranged(node, split, (0, 2, 4, 1, 3), merged)


def _rearranged(
    node: Node, split: list[Value], order: tuple[int, ...], merged: list[Value]
) -> Value:
    """The operand as ``split``, its last five dimensions in another order, as ``merged``."""
    sizes = [_numbers(shape) for shape in (split, merged)]
    if None in sizes:
        refuse(node, "normalise", "a shuffle of pixels whose number is not known")
        return None
    first = len(split) - 5
    dims = [*range(first), *(first + d for d in order)]
    seen = emit(node.graph, node, aten.reshape.default, (node.args[0], sizes[0]))
    turned = emit(node.graph, node, aten.permute.default, (seen, dims))
    return emit(node.graph, node, aten.reshape.default, (turned, sizes[1]))


def _numbers(shape: list[Value]) -> list[int] | None:
    """A shape to view as: -1 for the one size that is not a number, None where there are more."""
    unknown = [size for size in shape if not isinstance(size, int)]
    if len(unknown) > 1 or (unknown and 0 in shape):
        return None
    return [size if isinstance(size, int) else -1 for size in shape]


def channel_shuffle(node: Node) -> Value:
    """channel_shuffle(x, g) -> reshape(transpose(reshape(x, [n, g, c / g, ..]), 1, 2), shape)."""
    x, groups = _image(node)
    batch, channels, *plane = spec(x).shape
    split = _numbers([batch, groups, channels // groups, *plane])
    merged = _numbers([batch, channels, *plane])
    if split is None:
        refuse(node, "normalise", "a shuffle of channels in images whose size is not known")
        return None
    seen = emit(node.graph, node, aten.reshape.default, (x, split))
    turned = emit(node.graph, node, aten.transpose.int, (seen, 1, 2))
    return emit(node.graph, node, aten.reshape.default, (turned, merged))


def instance_norm(node: Node) -> Value:
    """instance_norm(x, w, b, ..) -> group_norm(x, c, w, b, eps); with statistics -> batch_norm."""
    bound = bind(node)
    x, weight, bias = (bound[key] for key in ("input", "weight", "bias"))
    channels = spec(x).shape[1]
    if not bound["use_input_stats"]:
        statistics = (bound["running_mean"], bound["running_var"], False, 0.0, bound["eps"], False)
        return emit(node.graph, node, aten.batch_norm.default, (x, weight, bias, *statistics))
    if bound["running_mean"] is not None:
        refuse(node, "normalise", "instance norm that updates running statistics")
        return None
    args = (x, channels, weight, bias, bound["eps"], False)
    return emit(node.graph, node, aten.group_norm.default, args)


def batched(rule: Rule | None, rank: int) -> Rule:
    """op(x, ..) of an image without a batch -> squeeze(op(unsqueeze(x, 0), ..), 0); then ``rule``.

    ``rank``: the spatial dimensions of the operator.
    """

    def rewritten(node: Node) -> Value:
        x = node.args[0] if node.args else None
        if not isinstance(x, Node) or spec(x).ndim != rank + 1:
            return rule(node) if rule is not None else None
        wide = emit(node.graph, node, aten.unsqueeze.default, (x, 0))
        result = emit(node.graph, node, callee(node), (wide, *node.args[1:]), node.kwargs)
        return emit(node.graph, node, aten.squeeze.dim, (result, 0))

    return rewritten


def pool_of_all(node: Node) -> Value:
    """adaptive_avg_pool3d(x, 1) -> mean(x, [2, 3, 4], keepdim=True)."""
    x, size = node.args
    assert isinstance(x, Node)
    assert isinstance(size, (list, tuple))
    if tuple(size) != (1, 1, 1) or 0 in spec(x).shape[2:]:
        return None
    return emit(node.graph, node, aten.mean.dim, (x, [2, 3, 4], True))


RULES: dict[Any, Rule] = {
    aten.pixel_shuffle.default: pixel_shuffle,
    aten.pixel_unshuffle.default: pixel_unshuffle,
    aten.channel_shuffle.default: channel_shuffle,
    aten.native_channel_shuffle.default: channel_shuffle,
    aten.instance_norm.default: instance_norm,
    **{getattr(aten, f"adaptive_avg_pool{n}d").default: batched(None, n) for n in (1, 2)},
    aten.adaptive_avg_pool3d.default: batched(pool_of_all, 3),
}
