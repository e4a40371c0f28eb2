"""Channels copied into another order: shuffles, and groups that straddle channel blocks."""

from __future__ import annotations

from torch_aio.ir.symbols import ceil_div, product
from torch_aio.kernels.channels import GatherChannels
from torch_aio.kernels.pack_conv import ChannelTable, TakeTable
from torch_aio.ops.take_channels import take_channels
from torch_aio.plan.families.reorder import planes
from torch_aio.plan.families.windows import blocked_temporary, operand_arguments, strides_of
from torch_aio.plan.lowering import Group, Lowering
from torch_aio.plan.row import Row
from torch_aio.plan.value import Argument, Value


def lower(ctx: Lowering, group: Group) -> None:
    """``aio.take_channels(xs, order)``."""
    node = group.output
    nodes, order = node.args
    xs = [ctx.value(source) for source in nodes]  # type: ignore[union-attr, arg-type]
    sizes = tuple(int(x.shape[1]) for x in xs)  # type: ignore[arg-type]
    target = ctx.output(node)
    rule = TakeTable(tuple(order), sizes, target.block)  # type: ignore[arg-type]
    table = ctx.table(rule, *(x.byte_stride[1] for x in xs))
    spec = GatherChannels(len(xs), masked=len(rule.order) % target.block != 0)
    gather_into(ctx, spec, xs, table, target, [])


def gather(
    ctx: Lowering, x: Value, kind: str, outer: int, inner: int, halo: tuple[int, int]
) -> Value:
    """x with its channels repeated, or its groups padded to whole blocks, and a halo."""
    n, _, height, width = planes(x.shape)
    wide = inner if kind == "repeat" else -(-inner // x.block) * x.block
    result = blocked_temporary(ctx, (n, outer * wide, height, width), x.block, halo, x)
    table = ctx.table(ChannelTable(kind, x.block), outer, inner, x.byte_stride[1])
    gather_into(ctx, GatherChannels(), [x], table, result, [])
    return result


def gather_into(
    ctx: Lowering, spec: GatherChannels, xs: list[Value], table: Value, y: Value,
    operands: list[Value],
) -> None:  # fmt: skip
    """The step ``y = epilogue(xs in the order of table)``."""
    n, channels, height, width = planes(y.shape)
    blocks = ceil_div(channels, y.block)
    sources: dict[str, Argument] = {}
    for s, x in enumerate(xs):
        batch, _, row, _ = x.byte_stride
        sources |= {f"x{s}": x, f"x{s}_batch": batch, f"x{s}_row": row}
    ctx.step(
        spec,
        product((n, blocks, height)),
        ("y",),
        **sources, table=table,
        y=y, **strides_of("y", y),
        channels=channels, blocks=blocks, height=height, width=width,
        **operand_arguments(spec.chain, operands, n, rows=True),
    )  # fmt: skip


ROWS: tuple[Row, ...] = (Row(take_channels, "channels", lower=lower, layout="blocked"),)
