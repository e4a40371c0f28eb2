"""Channels copied into another order: what groups that straddle channel blocks need."""

from __future__ import annotations

from torch_aio.ir.symbols import ceil_div, product
from torch_aio.kernels.channels import GatherChannels
from torch_aio.kernels.pack_conv import ChannelTable
from torch_aio.plan.families.reorder import planes
from torch_aio.plan.families.windows import blocked_temporary, operand_arguments, strides_of
from torch_aio.plan.lowering import Lowering
from torch_aio.plan.value import Value


def gather(
    ctx: Lowering, x: Value, kind: str, outer: int, inner: int, halo: tuple[int, int]
) -> Value:
    """x with its channels repeated, or its groups padded to whole blocks, and a halo."""
    n, _, height, width = planes(x.shape)
    wide = inner if kind == "repeat" else -(-inner // x.block) * x.block
    result = blocked_temporary(ctx, (n, outer * wide, height, width), x.block, halo, x)
    table = ctx.table(ChannelTable(kind, x.block), outer, inner, x.byte_stride[1])
    gather_into(ctx, GatherChannels(), x, table, result, [])
    return result


def gather_into(
    ctx: Lowering, spec: GatherChannels, x: Value, table: Value, y: Value, operands: list[Value]
) -> None:
    """The step ``y = epilogue(x in the order of table)``."""
    n, channels, height, width = planes(y.shape)
    blocks = ceil_div(channels, y.block)
    ctx.step(
        spec,
        product((n, blocks, height)),
        ("y",),
        x=x, x_batch=x.byte_stride[0], x_row=x.byte_stride[2], table=table,
        y=y, **strides_of("y", y),
        channels=channels, blocks=blocks, height=height, width=width,
        **operand_arguments(spec.chain, operands, n, rows=True),
    )  # fmt: skip
