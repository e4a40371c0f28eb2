"""A row of the operator table: one ATen operator, and how it becomes steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch.fx import Node

if TYPE_CHECKING:
    from torch_aio.plan.lowering import Group, Lowering
    from torch_aio.plan.trace import ChainTrace, Ref
    from torch_aio.plan.value import Value

Layout = Literal["plain", "blocked", "any"]


Prologue = Literal["", "read", "kept"]


def always(node: Node) -> str | None:
    """Accept every node."""
    return None


def no_halo(node: Node) -> tuple[int, int] | None:
    """Ask for no halo."""
    return None


def no_prologue(node: Node) -> Prologue:
    """Take no chain in front."""
    return ""


def is_blocked_eligible(node: Node) -> bool:
    """Take the blocked layout for every node."""
    return True


@dataclass(frozen=True)
class Row:
    """One operator of the table; dispatch, documentation and tests iterate these rows.

    One of three ways:
    ``lower(ctx, group)`` alone: kernel steps for the anchor ``group.anchor`` (with the chain fused
    behind it where ``epilogue``), the result in ``ctx.output(group.output)`` or set by
    ``ctx.bind``;
    ``chain(trace, node)``: elementwise steps appended to a fused chain, whose ``lower`` then takes
    groups without an anchor;
    ``view(ctx, node)``: another view of the operand's memory, or what the family binds itself.

    ``accept`` says None or, in one sentence, why a node is left to ATen. ``layout``: "plain" rows
    read and write strided tensors, "blocked" rows NCHWc, "any" rows what their operands are.
    ``wants_blocked(node)`` refines a "blocked" row (cat along channels that do not align: no).
    ``planar(node)``: a blocked row that reads its first input plain (first convolution).
    ``halo(node)``: (rows, columns) of zeros around the planes of input 0. ``flops(node)``: counted
    multiply-adds times two. ``prologue(node)``: whether the kernel computes the chain that makes
    its first operand ("read"), and can also write its result for others ("kept").
    """

    op: Any
    family: str
    accept: Callable[[Node], str | None] = always
    lower: Callable[[Lowering, Group], None] | None = None
    chain: Callable[[ChainTrace, Node], Ref] | None = None
    view: Callable[[Lowering, Node], Value | None] | None = None
    epilogue: bool = False
    layout: Layout = "plain"
    wants_blocked: Callable[[Node], bool] = is_blocked_eligible
    planar: Callable[[Node], bool] | None = None
    halo: Callable[[Node], tuple[int, int] | None] = no_halo
    prologue: Callable[[Node], Prologue] = no_prologue
    flops: Callable[[Node], Any] | None = None
