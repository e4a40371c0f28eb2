"""Groups without an anchor: elementwise operators that one step computes together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.fx import Node

from torch_aio.kernels.chain import Chain, Const, Input, Step
from torch_aio.plan.channels import LaneMask, channel_lanes
from torch_aio.plan.families.copies import apply
from torch_aio.plan.families.dtypes import anything
from torch_aio.plan.lowering import Group, Lowering
from torch_aio.plan.row import Row
from torch_aio.plan.trace import ChainTrace, Ref
from torch_aio.plan.value import Value

Emit = Callable[[ChainTrace, Node], Ref]


def row(op: Any, emit: Emit, accept: Callable[[Node], str | None] = anything) -> Row:
    """The row of an elementwise operator that ``emit`` appends to a chain."""
    return Row(op, "elementwise", accept=accept, lower=lower, chain=emit, layout="any")


def lower(ctx: Lowering, group: Group) -> None:
    """One elementwise step for all nodes of the group."""
    trace = ChainTrace()
    for node in group.nodes:
        trace.values[node] = ctx.row_of(node).chain(trace, node)
    output = group.output
    target = ctx.output(output)
    chain, operands = ctx.close(trace, output, channel=-1)
    if not chain.steps and chain.inputs[0].dtype != chain.result:
        raise TypeError("a chain without steps cannot change the dtype")
    if target.block:
        apply_masked(ctx, chain, operands, target)
    else:
        apply(ctx, chain, operands, target)


def apply_masked(ctx: Lowering, chain: Chain, operands: list[Value], target: Value) -> None:
    """One elementwise step into a blocked value, its padding lanes zero."""
    if target.shape[1] % target.block != 0 and not keeps_zero(chain):
        chain, operands = _masked(ctx, chain, operands, target)
    apply(ctx, chain, operands, target)


ZERO_KEEPING = frozenset(
    "mul relu neg abs sign sqrt tanh erf silu gelu gelu_tanh hardswish leaky_relu sin mish elu "
    "floor ceil trunc round cast expm1 log1p".split()
)
"""Operations with f(0, ...) = 0 whatever the other operand: padding lanes stay zero."""


def keeps_zero(chain: Chain) -> bool:
    """Whether zero inputs (padding lanes) surely give a zero result."""
    if any(i.access == "scalar" for i in chain.inputs):
        return False
    plain = frozenset({"add", "sub", "max", "min"})
    return all(
        step.op in ZERO_KEEPING or (step.op in plain and all(isinstance(a, int) for a in step.args))
        for step in chain.steps
    )


def _masked(
    ctx: Lowering, chain: Chain, operands: list[Value], target: Value
) -> tuple[Chain, list[Value]]:
    """The chain with padding lanes set to zero."""
    channels, block = int(target.shape[1]), target.block  # type: ignore[arg-type]
    mask = channel_lanes(ctx.constant((), LaneMask(channels, block)), channels, block)
    first = len(chain.inputs)
    steps = tuple(
        Step(s.op, tuple(a + (a >= first) if isinstance(a, int) else a for a in s.args), s.dtype)
        for s in chain.steps
    )
    last = first + len(steps) if steps else 0
    steps += (Step("where", (first, last, Const(0)), chain.result),)
    return Chain((*chain.inputs, Input("bool", "channel")), steps), [*operands, mask]
