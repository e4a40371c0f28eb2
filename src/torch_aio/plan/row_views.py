"""Values as rows: what kernels need that work row by row."""

from __future__ import annotations

from collections.abc import Sequence

from torch_aio.ir.symbols import Int, product
from torch_aio.kernels.chain import Chain
from torch_aio.plan.families.copies import contiguous
from torch_aio.plan.lowering import Lowering
from torch_aio.plan.strides import reshaped
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


def operand_arguments(
    ctx: Lowering, chain: Chain, operands: Sequence[Value], prefix: str, dims: int = 1
) -> dict[str, Argument]:
    """The arguments of the operands 1.. of an epilogue (see ``kernels.rows``)."""
    arguments: dict[str, Argument] = {}
    for n, (operand, given) in enumerate(zip(chain.inputs[1:], operands, strict=True), 1):
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
