"""One spelling for padding: a constant is ``constant_pad_nd``, everything else slices joined."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from torch_aio.graph.rewrite import Rule, Value, aten, bind, emit, refuse, spec

_SPELLED = {"reflect": "reflection", "replicate": "replication", "circular": "circular"}


def pad(node: Node) -> Value:
    """pad(x, p, "constant", v) -> constant_pad_nd(x, p, v); without padding -> clone(x)."""
    bound = bind(node)
    x, sides, value = bound["self"], list(bound["pad"]), bound["value"]
    mode = bound.get("mode", "constant")
    if mode != "constant":
        return _mirrored(node, x, sides, _SPELLED[mode])
    if all(isinstance(side, int) and side == 0 for side in sides):
        return emit(node.graph, node, aten.clone.default, (x,))
    args = (x, sides, 0 if value is None else value)
    if node.target is aten.constant_pad_nd.default and node.args == args and not node.kwargs:
        return None
    return emit(node.graph, node, aten.constant_pad_nd.default, args)


def mirrored(node: Node) -> Value:
    """reflection_pad1d(x, [a, b]) -> cat([flip(x[1:a+1]), x, flip(x[-b-1:-1])]).

    Also replication and circular padding.
    """
    x, sides = node.args
    assert isinstance(x, Node)
    return _mirrored(node, x, list(sides), str(node.target))  # type: ignore[arg-type]


def _mirrored(node: Node, x: Node, sides: list[Value], kind: str) -> Value:
    if not all(isinstance(side, int) and side >= 0 for side in sides):
        refuse(node, "normalise", "padding by reflection that cuts, or by a size not yet known")
        return None
    border = next(found for name, found in _BORDERS.items() if name in kind)
    ndim = spec(x).ndim
    for n, (before, after) in enumerate(zip(sides[::2], sides[1::2], strict=True)):
        axis = ndim - 1 - n
        parts = [x]
        if before:
            parts.insert(0, border(node, x, axis, before, first=True))
        if after:
            parts.append(border(node, x, axis, after, first=False))
        x = emit(node.graph, node, aten.cat.default, (parts, axis)) if len(parts) > 1 else x
    return x if any(sides) else emit(node.graph, node, aten.clone.default, (x,))


def _reflected(node: Node, x: Node, axis: int, count: int, *, first: bool) -> Node:
    size = spec(x).shape[axis]
    if not count < size:
        raise ValueError(f"reflection by {count} of {size}")
    ends = (1, count + 1) if first else (size - count - 1, size - 1)
    part = _part(node, x, axis, *ends)
    return emit(node.graph, node, aten.flip.default, (part, [axis])) if count > 1 else part


def _replicated(node: Node, x: Node, axis: int, count: int, *, first: bool) -> Node:
    size = spec(x).shape[axis]
    if not size > 0:
        raise ValueError(f"replication by {count} of {size}")
    part = _part(node, x, axis, *((0, 1) if first else (size - 1, size)))
    times = [-1] * spec(x).ndim
    times[axis] = count
    return emit(node.graph, node, aten.expand.default, (part, times))


def _around(node: Node, x: Node, axis: int, count: int, *, first: bool) -> Node:
    size = spec(x).shape[axis]
    if count > size:
        raise ValueError(f"circular padding by {count} of {size}")
    return _part(node, x, axis, *((size - count, size) if first else (0, count)))


def _part(node: Node, x: Node, axis: int, start: Value, end: Value) -> Node:
    """``x[start:end]``; ends that depend on a symbolic size are counted from the back."""
    size = spec(x).shape[axis]
    start, end = (at if isinstance(at, int) else at - size for at in (start, end))
    args = (x, axis, start) if end == 0 else (x, axis, start, end)
    return emit(node.graph, node, aten.slice.Tensor, args)


_BORDERS: dict[str, Any] = {
    "reflection": _reflected,
    "replication": _replicated,
    "circular": _around,
}
RULES: dict[Any, Rule] = {
    **dict.fromkeys((aten.pad.default, aten.constant_pad_nd.default), pad),
    aten._pad_circular.default: mirrored,
    **dict.fromkeys(
        (
            getattr(aten, f"{kind}_pad{n}d").default
            for kind in ("reflection", "replication")
            for n in (1, 2, 3)
        ),
        mirrored,
    ),
}
