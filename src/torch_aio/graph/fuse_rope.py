"""Pass ``fuse_rope``: rotary embedding as models spell it out becomes one operator."""

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
    tensor,
)
from torch_aio.ops.rotate import rotate

_NAME = "fuse_rope"


def fuse_rope(gm: GraphModule) -> int:
    """x * cos + cat((-x[.., h:], x[.., :h]), -1) * sin -> aio.rotate(x, cos, sin), 2 h wide.

    Also spelled by halves: cat((a * cos - b * sin, b * cos + a * sin), -1) for x = cat((a, b), -1),
    with tables of half the width.
    """
    count = 0
    for node in list(gm.graph.nodes):
        if node._erased:
            continue
        found = None
        if calls(node, aten.add.Tensor):
            found = _whole(node)
        elif calls(node, aten.cat.default):
            found = _by_halves(node)
        if found is None:
            continue
        reason = _why_not(node, found)
        if reason is not None:
            refuse(node, _NAME, reason)
            continue
        count += replace(node, emit(node.graph, node, rotate, found))
    sweep_dead(gm.graph)
    return count


Operands = tuple[Node, Node, Node]


def _whole(node: Node) -> Operands | None:
    """``(x, cos, sin)`` where node is x * cos + rotate_half(x) * sin, in any order."""
    for plain, turned in (operands(node), operands(node)[::-1]):
        if not calls(plain, aten.mul.Tensor) or not calls(turned, aten.mul.Tensor):
            continue
        for half, sin in (operands(turned), operands(turned)[::-1]):
            x = _rotated_half(half)
            for source, cos in (operands(plain), operands(plain)[::-1]):
                if x is not None and source is x and tensor(cos) and tensor(sin):
                    return x, cos, sin
    return None


def _rotated_half(value: Value) -> Node | None:
    """x where ``value`` is cat((-x[.., h:], x[.., :h]), -1)."""
    parts = _last_two(value)
    if parts is None or not calls(parts[0], aten.neg.default):
        return None
    b, a = _half(operands(parts[0])[0]), _half(parts[1])
    return a[0] if a and b and a[0] is b[0] and (a[1], b[1]) == (0, 1) else None


def _by_halves(node: Node) -> Operands | None:
    """``(x, cos, sin)`` where node is cat((a * cos - b * sin, b * cos + a * sin), -1)."""
    parts = _last_two(node)
    if (
        parts is None
        or not calls(parts[0], aten.sub.Tensor)
        or not calls(parts[1], aten.add.Tensor)
    ):
        return None
    first, second = operands(parts[0])
    for last, other in (operands(parts[1]), operands(parts[1])[::-1]):
        pairs = [_scaled_half(value) for value in (first, second, last, other)]
        known = [pair for pair in pairs if pair is not None]
        if len(known) < len(pairs):
            continue
        (a, i, cos), (b, j, sin), (b_again, k, cos_again), (a_again, l, sin_again) = known
        same = a is b is b_again is a_again and cos is cos_again and sin is sin_again
        if same and (i, j, k, l) == (0, 1, 1, 0):
            return a, cos, sin
    return None


def _scaled_half(value: Value) -> tuple[Node, int, Node] | None:
    """``(x, which, table)`` where ``value`` is a half of x times a table."""
    if not calls(value, aten.mul.Tensor):
        return None
    for part, table in (operands(value), operands(value)[::-1]):
        half = _half(part)
        if half is not None and tensor(table):
            return (*half, table)
    return None


def _last_two(value: Value) -> list[Node] | None:
    """The two parts of a concatenation along the last dimension."""
    if not calls(value, aten.cat.default):
        return None
    bound = bind(value)
    parts = bound["tensors"]
    is_last = dim(bound["dim"], spec(value).ndim) == spec(value).ndim - 1
    return list(parts) if is_last and len(parts) == 2 else None


def _half(value: Value) -> tuple[Node, int] | None:
    """``(x, which)`` where ``value`` is the first (0) or second half of x's last dimension."""
    if not calls(value, aten.slice.Tensor):
        return None
    bound = bind(value)
    x, ndim = bound["self"], spec(value).ndim
    width = spec(x).shape[-1]
    if dim(bound["dim"], ndim) != ndim - 1 or bound["step"] != 1 or not isinstance(width, int):
        return None
    if not same_int(spec(value).shape[-1] * 2, width):
        return None
    start = bound["start"] or 0
    return {0: (x, 0), width // 2: (x, 1), -(width // 2): (x, 1)}.get(start)


def _why_not(node: Node, found: Operands) -> str | None:
    """Why the operator does not compute this, as a sentence; None: it does."""
    x, cos, sin = (spec(n) for n in found)
    if not same_sizes(spec(node).shape, x.shape):
        return "the tables of cosines and sines enlarge what they turn"
    if any(found.dtype != x.dtype for found in (cos, sin, spec(node))):
        return "the rotation is not computed in the dtype of its input"
    if cos.ndim < 1 or sin.ndim < 1 or not same_int(cos.shape[-1], sin.shape[-1]):
        return "the tables of cosines and sines are not of one width"
    width = cos.shape[-1]
    whole = calls(node, aten.add.Tensor)
    if not same_int(width if whole else width * 2, x.shape[-1]):
        return "the tables of cosines and sines have another width than what they turn"
    return None
