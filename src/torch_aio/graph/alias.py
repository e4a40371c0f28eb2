"""Which nodes share memory: views, their bases, and what reaches an output."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import Node

aten = torch.ops.aten


def is_view(node: Node) -> bool:
    """Whether ``node`` may return (a part of) its first argument's memory."""
    if node.op != "call_function" or not node.args:
        return False
    if node.target is operator.getitem:
        return isinstance(node.args[0], Node) and is_view(node.args[0])
    schema = getattr(node.target, "_schema", None)
    if schema is None or schema.is_mutable:
        return False
    if any(result.alias_info is not None for result in schema.returns):
        return True
    return node.target in _MAY_RETURN_INPUT


_MAY_RETURN_INPUT = (
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.alpha_dropout.default,
    aten.feature_alpha_dropout.default,
)


def is_write(node: Node) -> bool:
    """Whether ``node`` writes into its first argument and returns it."""
    if node.op != "call_function":
        return False
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def base(node: Node) -> Node:
    """The node whose memory ``node`` is a view of (itself if it is no view)."""
    while is_view(node) and isinstance(node.args[0], Node):
        node = node.args[0]
    return node


def views(node: Node) -> list[Node]:
    """``node`` and every view of it, direct or not."""
    found = [node]
    for view in found:
        found.extend(user for user in view.users if is_view(user) and user.args[0] is view)
    return found


def escapes(node: Node) -> bool:
    """Whether the caller, or a write into an input, sees the memory of ``node``."""
    return any(user.op == "output" or is_write(user) for view in views(node) for user in view.users)


def is_owned_by_caller(node: Node) -> bool:
    """Whether the memory of ``node`` is an input's or a constant's."""
    return base(node).op in ("placeholder", "get_attr")


def may_drop_copy(copy: Node, source: Node) -> bool:
    """Whether readers of ``copy`` may read ``source`` itself, though one of both may be written."""
    if not escapes(copy):
        return True
    if is_owned_by_caller(source):
        return False
    return not _escapes_otherwise(source, copy)


def _escapes_otherwise(source: Node, copy: Node) -> bool:
    users: list[Any] = [
        user for view in views(base(source)) for user in view.users if user is not copy
    ]
    return any(user.op == "output" or is_write(user) for user in users)


def may_drop_view(view: Node, source: Node) -> bool:
    """Whether ``source`` may stand for a view of all of it: outputs stay separate objects."""
    returned = any(user.op == "output" for user in view.users)
    if not returned:
        return True
    return source.op == "call_function" and not any(u.op == "output" for u in source.users)
