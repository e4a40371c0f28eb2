"""Stacks of images: blocked tensors of three spatial dimensions, and their padding of depth.

A tensor [N, C, D, H, W] is blocked as N * D images: [N * D][C/c][H][W][c]. Tensors of fewer
dimensions are one sample of N images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch.fx import Node

from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Int, ceil_div
from torch_aio.plan.families.copies import copy
from torch_aio.plan.families.joining import fill
from torch_aio.plan.families.reorder import planes
from torch_aio.plan.families.windows import blocked_temporary
from torch_aio.plan.lowering import Lowering
from torch_aio.plan.value import Value

if TYPE_CHECKING:
    from torch_aio.plan.families.phases import Phase

Halo = tuple[int, int]


@dataclass(frozen=True)
class Stack:
    """``samples`` of ``depth`` images of a blocked value, ``apart`` elements between samples."""

    value: Value
    samples: Int
    depth: Int
    apart: Int

    @property
    def sizes(self) -> tuple[Int, Int, Int]:
        """Depth, height, width."""
        return (self.depth, *planes(self.value.shape)[2:])

    @property
    def is_one(self) -> bool:
        """Whether there is one sample, so that the images lie evenly."""
        return isinstance(self.samples, int) and self.samples == 1

    @property
    def blocks(self) -> Int:
        """Channel blocks."""
        return ceil_div(self.value.shape[1], self.value.block)

    @property
    def is_dense(self) -> bool:
        """Whether the blocks of an image follow those of the one before without a gap."""
        gap = self.value.stride[0] - self.blocks * self.value.stride[1]
        return isinstance(gap, int) and gap == 0

    @property
    def sample_bytes(self) -> Int:
        """Bytes between samples."""
        return self.apart * self.value.itemsize

    def seen(self, phases: Sequence[Phase], sizes: Sequence[Int]) -> Value:
        """The pixels of a phase, of the first sample."""
        depth, rows, columns = phases
        image, block, row, pixel = self.value.stride
        first = depth.first * image + rows.first * row + columns.first * pixel
        return replace(
            self.value,
            shape=(sizes[0], self.value.shape[1], sizes[1], sizes[2]),
            stride=(image * depth.step, block, row * rows.step, pixel * columns.step),
            offset=self.value.offset + first * self.value.itemsize,
        )

    def moved(self, phase: Phase) -> Value:
        """The images that the first depth tap of a phase reads; the others are further blocks."""
        image, block, row, pixel = self.value.stride
        if isinstance(self.blocks, int) and self.blocks == 1:
            block = image * phase.apart
        offset = self.value.offset + phase.start * image * self.value.itemsize
        return replace(self.value, stride=(image * phase.advance, block, row, pixel), offset=offset)

    def plain(
        self, first: Int, count: Int, step: Int = 1, blocks: tuple[Int, Int] | None = None
    ) -> Value:
        """Every ``step``-th image from ``first`` on as a plain value of six dimensions."""
        image, block, row, pixel = self.value.stride
        low, high = blocks or (0, self.blocks)
        _, height, width = self.sizes
        return replace(
            self.value,
            shape=(self.samples, count, high - low, height, width, self.value.block),
            stride=(self.apart, image * step, block, row, pixel, 1),
            offset=self.value.offset + (first * image + low * block) * self.value.itemsize,
            block=0,
        )


def stack(node: Node, value: Value) -> Stack:
    """The value of a node as a stack."""
    spec: TensorSpec = node.meta["spec"]
    image = value.stride[0]
    if spec.ndim < 5:
        return Stack(value, 1, spec.shape[0], spec.shape[0] * image)
    return Stack(value, spec.shape[0], spec.shape[2], spec.shape[2] * image)


def padded(ctx: Lowering, x: Stack, depth: int, halo: Halo) -> Stack:
    """A dense copy with ``depth`` images of zeros before and after each sample, and a halo."""
    images = x.depth + 2 * depth
    _, channels, height, width = planes(x.value.shape)
    shape = (x.samples * images, channels, height, width)
    value = blocked_temporary(ctx, shape, x.value.block, halo, x.value)
    whole = Stack(value, x.samples, images, images * value.stride[0])
    if depth:
        fill(ctx, whole.plain(0, depth), 0)
        fill(ctx, whole.plain(images - depth, depth), 0)
    copy(ctx, x.plain(0, x.depth), whole.plain(depth, x.depth))
    inside = replace(value, offset=value.offset + depth * value.byte_stride[0])
    return replace(whole, value=inside, depth=x.depth)


def gathered(ctx: Lowering, x: Stack, phase: Phase, outputs: int, groups: int, halo: Halo) -> Stack:
    """The images of all depth taps side by side: [outputs][groups][taps][blocks of a group]."""
    taps, per_group = len(phase.taps), x.blocks // groups
    _, height, width = x.sizes
    block = x.value.block
    shape = (x.samples * outputs, groups * taps * per_group * block, height, width)
    value = blocked_temporary(ctx, shape, block, halo, x.value)
    result = Stack(value, x.samples, outputs, outputs * value.stride[0])
    for tap in range(taps):
        start = phase.start + tap * phase.apart
        low, high = inside(start, phase.advance, outputs, int(x.depth))  # type: ignore[arg-type]
        for group in range(groups):
            to = (group * taps + tap) * per_group
            spot, source = (to, to + per_group), (group * per_group, (group + 1) * per_group)
            fill(ctx, result.plain(0, low, 1, spot), 0)
            fill(ctx, result.plain(high, outputs - high, 1, spot), 0)
            seen = x.plain(start + low * phase.advance, high - low, phase.advance, source)
            copy(ctx, seen, result.plain(low, high - low, 1, spot))
    return result


def inside(start: int, advance: int, outputs: int, size: int) -> tuple[int, int]:
    """The outputs q in [low, high) for which ``start + q * advance`` lies in [0, size)."""
    low = min(max(-(start // advance), 0), outputs)
    high = min(max((size - 1 - start) // advance + 1, low), outputs)
    return low, high


def zero(ctx: Lowering) -> Value:
    """The number 0 in memory."""
    value = ctx.temporary((1,), torch.float32, "zero")
    fill(ctx, value, 0)
    return value
