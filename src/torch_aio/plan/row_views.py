"""Values as rows: what kernels need that work row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Int, product
from torch_aio.kernels.chain import Chain
from torch_aio.kernels.rows import COPY
from torch_aio.plan.families.copies import contiguous
from torch_aio.plan.lowering import Group, Lowering
from torch_aio.plan.strides import reshaped
from torch_aio.plan.trace import ChainTrace
from torch_aio.plan.value import Argument, Value


def as_rows(ctx: Lowering, value: Value, dims: int = 1) -> Value:
    """A plain value as [rows, columns], the last ``dims`` dimensions merged, columns adjacent.

    Copied where its memory cannot be seen that way.
    """
    cut = len(value.shape) - dims
    shape = (product(value.shape[:cut]), product(value.shape[cut:]))
    stride = reshaped(value.shape, value.stride, shape)
    if stride is None or (stride[1] != 1 and shape[1] != 1):
        value = contiguous(ctx, value)
        stride = (shape[1], 1)
    return value.view(shape, stride)


def prologue(ctx: Lowering, group: Group, dims: int = 1) -> tuple[Chain, dict[str, Argument]]:
    """The chain in front of a group's anchor, and ``cols`` and its operands as arguments.

    Without one it is ``COPY`` of the anchor's first operand, in rows of ``dims`` dimensions.
    """
    assert group.anchor is not None
    source: Any = group.anchor.args[0]
    if group.before is None:
        x = as_rows(ctx, ctx.value(source), dims)
        return COPY, {"cols": x.shape[1], "x0": x, "x0_row": x.byte_stride[0]}
    trace = ChainTrace()
    for node in group.before.nodes:
        trace.values[node] = ctx.row_of(node).chain(trace, node)
    spec: TensorSpec = source.meta["spec"]
    if not trace.steps:  # a chain of copies alone: the kernels know one without steps as COPY
        trace.values[source] = trace.step("cast", (trace.values[source],), spec.dtype)
    chain, operands = ctx.close(trace, source, channel=-1)
    columns = spec.shape[-1] if spec.shape else 1
    return chain, {"cols": columns, **operand_arguments(ctx, chain, operands, "x", first=0)}


def merged(chain: Chain, dims: int) -> Chain:
    """The chain over rows of ``dims`` dimensions: what varies along some of them is read in full.

    A number for each row or column is one only where a column is the last dimension.
    """
    if dims == 1:
        return chain
    inputs = [
        replace(operand, access="full") if operand.access in ("row", "channel") else operand
        for operand in chain.inputs
    ]
    return replace(chain, inputs=tuple(inputs))


def operand_arguments(
    ctx: Lowering, chain: Chain, operands: Sequence[Value], prefix: str, dims: int = 1,
    first: int = 1,
) -> dict[str, Argument]:  # fmt: skip
    """The arguments of a chain's operands from input ``first`` on (see ``kernels.rows``).

    For several ``dims`` the chain is a ``merged`` one.
    """
    arguments: dict[str, Argument] = {}
    for n, (operand, given) in enumerate(zip(chain.inputs[first:], operands, strict=True), first):
        value = given
        row: Int = 0
        if operand.access == "full":
            value = as_rows(ctx, value, dims)
            row = value.byte_stride[0]
        elif operand.access == "row":
            value, row = _row_numbers(ctx, value)
        elif operand.access == "channel":
            value = _columns(ctx, value)
        arguments[f"{prefix}{n}"] = value
        if operand.access in ("full", "row"):
            arguments[f"{prefix}{n}_row"] = row
    return arguments


def _row_numbers(ctx: Lowering, value: Value) -> tuple[Value, Int]:
    narrow = value.view((*value.shape[:-1], 1), (*value.stride[:-1], 1))
    rows = (product(value.shape[:-1]), 1)
    stride = reshaped(narrow.shape, narrow.stride, rows)
    if stride is None:
        narrow = contiguous(ctx, narrow)
        stride = (1, 1)
    return narrow, stride[0] * value.itemsize


def _columns(ctx: Lowering, value: Value) -> Value:
    line = value.view(value.shape[-1:], value.stride[-1:])
    return contiguous(ctx, line)
