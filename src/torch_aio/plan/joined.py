"""Results that are written where a ``cat`` of channels wants them, so that it copies nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.fx import Node

Halos = Mapping[Node, tuple[int, int]]
cat = torch.ops.aten.cat.default


@dataclass(frozen=True)
class Place:
    """Channels of ``whole``, a blocked ``cat``, from ``first`` on."""

    whole: Node
    first: int


def places(nodes: Sequence[Node], halos: Halos) -> dict[Node, Place]:
    """Where nodes of one network are written that are part of a blocked ``cat``.

    A ``cat`` of the first parts of another one lies in it too: the features of a DenseNet block are
    written once for all layers that read them.
    """
    found: dict[Node, Place] = {}
    inside = set(nodes)
    for node in reversed(nodes):
        if not _is_blocked_cat(node):
            continue
        home = found.get(node, Place(node, 0))
        parts, first = _parts(node), home.first
        for part in parts:
            if part in inside and part not in found and _fits(part, home.whole, halos):
                found[part] = Place(home.whole, first)
            first += part.meta["spec"].shape[1]
        for user in parts[0].users:
            is_free = user in inside and user is not node and user not in found
            if is_free and _begins(node, user) and _fits(user, home.whole, halos):
                found[user] = home
    return found


def _begins(node: Node, shorter: Node) -> bool:
    """Whether a blocked ``cat`` joins the first parts of another one."""
    return _is_blocked_cat(shorter) and _parts(node)[: len(_parts(shorter))] == _parts(shorter)


def _is_blocked_cat(node: Node) -> bool:
    return node.target is cat and node.meta.get("layout") == "blocked"


def _parts(node: Node) -> list[Node]:
    return list(node.args[0])  # type: ignore[arg-type]


def _fits(part: Node, whole: Node, halos: Halos) -> bool:
    """Whether a blocked part finds the frame of zeros that its readers need."""
    have, want = halos.get(whole, (0, 0)), halos.get(part, (0, 0))
    return part.meta.get("layout") == "blocked" and have[0] >= want[0] and have[1] >= want[1]
