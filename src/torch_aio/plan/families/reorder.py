"""The row of ``aio.reorder``, and the frames of zeros around blocked planes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch.fx import Node

from torch_aio.ir.symbols import Int, ceil_div
from torch_aio.kernels.reorder import Dense, FromBlocked, HaloZero, ToBlocked
from torch_aio.ops.reorder import reorder
from torch_aio.plan.lowering import Group, Lowering
from torch_aio.plan.row import Row
from torch_aio.plan.value import Value

WIDE = 64
"""Rows of so many pixels lose little by being handled one by one, and split better over threads."""


def lower(ctx: Lowering, group: Group) -> None:
    """Plain to blocked or back; free where planes of one pixel lie alike in both."""
    node = group.output
    source, layout = node.args
    assert isinstance(source, Node)
    value = ctx.value(source)
    if layout == "blocked":
        for plain, part in _slices(value, ctx.output(node)):
            _to_blocked(ctx, plain, part)
        return
    _, _, height, width = planes(value.shape)
    shape = node.meta["spec"].shape
    if node not in ctx.outputs and height == 1 and width == 1 and len(shape) < 5:
        batch, _, _, pixel = value.stride
        ctx.bind(node, _plain_view(value, batch, pixel))
        return
    for plain, part in _slices(ctx.output(node), value):
        _from_blocked(ctx, part, plain)


def _from_blocked(ctx: Lowering, value: Value, target: Value) -> None:
    n, channels, height, width = planes(value.shape)
    batch, block, row, _ = value.byte_stride
    y_n, y_c, y_h, y_w = plane_strides(target)
    if _is_one_row(value, (height, width), (y_h, y_w)):
        height, width = 1, height * width
    ctx.step(
        FromBlocked(dense=_dense(y_c, y_w)),
        n * ceil_div(channels, value.block) * height,
        ("y",),
        x=value, x_batch=batch, x_block=block, x_row=row,
        y=target, y_n=y_n, y_c=y_c, y_h=y_h, y_w=y_w,
        channels=channels, height=height, width=width,
    )  # fmt: skip


def _slices(plain: Value, blocked: Value) -> Iterator[tuple[Value, Value]]:
    """Parts of four dimensions of a plain value, and the images of a blocked one that they are.

    Of [N, C, D, H, W] the samples or the images of one depth, whichever are fewer.
    """
    if len(plain.shape) < 5:
        yield plain, blocked
        return
    batch, channels, depth, *plane = plain.shape
    by_batch, by_channel, by_depth, *rest = plain.stride
    image, *inner = blocked.stride
    count, size, ahead, along, first, step = depth, batch, by_depth, by_batch, image, depth * image
    if isinstance(batch, int) and not (isinstance(depth, int) and depth < batch):
        count, size, ahead, along = batch, depth, by_batch, by_depth
        first, step = depth * image, image
    for part in range(int(count)):  # type: ignore[arg-type]
        shape = (size, channels, *plane)
        offset = blocked.offset + part * first * blocked.itemsize
        images = replace(blocked, shape=shape, stride=(step, *inner), offset=offset)
        yield plain.view(shape, (along, by_channel, *rest), part * ahead), images


def clear_halo(ctx: Lowering, value: Value, halo: tuple[int, int]) -> None:
    """A step that zeroes ``halo`` rows above and below, columns left and right of every plane."""
    n, channels, height, width = planes(value.shape)
    batch, block, row, _ = value.byte_stride
    blocks = ceil_div(channels, value.block)
    ctx.step(
        HaloZero(),
        n * blocks,
        ("y",),
        y=value, y_batch=batch, y_block=block, y_row=row, blocks=blocks,
        height=height, width=width,
        top=halo[0], bottom=halo[0], left=halo[1], right=halo[1],
    )  # fmt: skip


def planes(shape: tuple[Int, ...]) -> tuple[Int, Int, Int, Int]:
    """Batch, channels, height and width of a [N, C, H, W] or [N, C, L] shape."""
    batch, channels, *plane = shape
    height, width = plane if len(plane) == 2 else (1, plane[0])
    return batch, channels, height, width


def plane_strides(value: Value) -> tuple[Int, Int, Int, Int]:
    """Byte strides of batch, channel, row and column of a plain value of such a shape."""
    n, c, *rest = value.byte_stride
    return (n, c, rest[0], rest[1]) if len(rest) == 2 else (n, c, 0, rest[0])


def _to_blocked(ctx: Lowering, value: Value, target: Value) -> None:
    n, channels, height, width = planes(value.shape)
    x_n, x_c, x_h, x_w = plane_strides(value)
    batch, block, row, _ = target.byte_stride
    if _is_one_row(target, (height, width), (x_h, x_w)):
        height, width = 1, height * width
    ctx.step(
        ToBlocked(dense=_dense(x_c, x_w)),
        n * ceil_div(channels, target.block) * height,
        ("y",),
        x=value, x_n=x_n, x_c=x_c, x_h=x_h, x_w=x_w,
        y=target, y_batch=batch, y_block=block, y_row=row,
        channels=channels, height=height, width=width,
    )  # fmt: skip


def _is_one_row(blocked: Value, plane: tuple[Int, Int], plain: tuple[Int, Int]) -> bool:
    """Whether rows follow each other without gaps on both sides, and are short.

    As one row, planes narrower than a vector go at full speed (14x14x512, AVX-512: 20 -> 102 GB/s).
    """
    (height, width), (row, column) = plane, plain
    if not isinstance(height * width, int) or width >= WIDE:
        return False
    return bool(blocked.stride[2] == width * blocked.stride[3] and row == width * column)


def _dense(channel: Int, column: Int) -> Dense:
    return "w" if column == 4 else "c" if channel == 4 else ""


def _plain_view(value: Value, batch: Int, pixel: Int) -> Value:
    ones = (pixel,) * (len(value.shape) - 2)
    return Value(value.buffer, value.shape, value.dtype, (batch, 1, *ones), value.offset)


ROWS: tuple[Row, ...] = (Row(reorder, "reorder", lower=lower),)
