"""Pass ``fuse_shuffle``: a channel shuffle between convolutions becomes one copy of channels."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from torch_aio.graph.compare import same_sizes
from torch_aio.graph.rewrite import (
    aten,
    bind,
    calls,
    dim,
    emit,
    operands,
    replace_as_is,
    respec,
    spec,
    sweep_dead,
    tensor,
)
from torch_aio.ops.take_channels import take_channels

_RESHAPES = (aten.view.default, aten.reshape.default)
_CONVS = (aten.conv1d.default, aten.conv2d.default)


def fuse_shuffle(gm: GraphModule) -> int:
    """reshape(transpose(view(cat(xs, 1), [n, g, k, h, w]), 1, 2), [n, g * k, h, w])
    -> aio.take_channels(xs, order), and each slice of it along the channels likewise.

    Only where a convolution computes one of xs: its channels lie in blocks, which a plain transpose
    would have to take apart.
    """  # noqa: D205
    count = 0
    for node in list(gm.graph.nodes):
        found = None if node._erased else _shuffle(node)
        if found is not None:
            count += _take(node, *found)
    if count:
        sweep_dead(gm.graph)
        respec(gm)
    return count


def _shuffle(node: Node) -> tuple[list[Node], list[int]] | None:
    """What is shuffled, and the order of its channels."""
    if not calls(node, *_RESHAPES):
        return None
    turned = operands(node)[0]
    if calls(turned, aten.clone.default):
        turned = operands(turned)[0]
    if not _swaps_groups(turned) or not calls(operands(turned)[0], *_RESHAPES):
        return None
    view = operands(turned)[0]
    x = operands(view)[0]
    have, split, out = tensor(x), spec(view).shape, spec(node).shape
    groups, size = split[1:3]
    if have is None or have.dtype != torch.float32 or have.ndim != 4:
        return None
    if not (isinstance(groups, int) and isinstance(size, int) and have.shape[1] == groups * size):
        return None
    if not same_sizes(have.shape, out) or not same_sizes(have.shape[2:], split[3:]):
        return None
    sources = _parts(x)
    if not any(_is_convolved(source) for source in sources):
        return None
    return sources, [g * size + n for n in range(size) for g in range(groups)]


def _swaps_groups(node: Node) -> bool:
    """Whether a node swaps dimensions 1 and 2 of five."""
    if calls(node, aten.permute.default):
        return [dim(d, 5) for d in operands(node)[1]] == [0, 2, 1, 3, 4]
    is_swap = calls(node, aten.transpose.int) and spec(node).ndim == 5
    return is_swap and {dim(d, 5) for d in operands(node)[1:3]} == {1, 2}


def _parts(x: Node) -> list[Node]:
    """The operands of a ``cat`` of channels, else the node itself."""
    if not calls(x, aten.cat.default):
        return [x]
    bound = bind(x)
    parts: list[Node] = list(bound["tensors"])
    alike = all(spec(p).ndim == 4 and spec(p).dtype == torch.float32 for p in parts)
    known = all(isinstance(spec(p).shape[1], int) for p in parts)
    return parts if alike and known and dim(bound["dim"], 4) == 1 else [x]


def _is_convolved(node: Node) -> bool:
    """Whether a node is a convolution, perhaps with an activation behind it."""
    return calls(node, *_CONVS) or any(calls(source, *_CONVS) for source in node.all_input_nodes)


def _take(node: Node, sources: list[Node], order: list[int]) -> int:
    """Replace ``node``, or the slices of it where there is nothing else."""
    taken = {user: _slice(user, node) for user in node.users}
    if any(part is None for part in taken.values()):
        taken = {node: slice(None)}
    count = 0
    for user, part in taken.items():
        assert part is not None
        new = emit(node.graph, user, take_channels, (sources, order[part]), like=node)
        count += replace_as_is(user, new)
    return count


def _slice(user: Node, node: Node) -> slice | None:
    """The channels that a user takes of ``node``, if that is all it does."""
    if not calls(user, aten.slice.Tensor) or operands(user)[0] is not node:
        return None
    bound: dict[str, Any] = bind(user)
    bounds = [bound["start"], bound["end"], bound["step"]]
    if dim(bound["dim"], 4) != 1 or not all(b is None or isinstance(b, int) for b in bounds):
        return None
    return slice(*bounds)
