"""Weights and biases of convolutions, packed once for the kernels that read them; pixel tables.

Each class is a pack function that is hashable by value: ``PackConv(...)(weight) -> tensor``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from torch_aio.kernels.padding import padded


@dataclass(frozen=True)
class PackDepthwise:
    """[C, group, KH, KW] -> [C/c][KH][KW][group][c], zero past the last channel."""

    block: int

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        """The packed weight."""
        channels, group, height, width = _planes(weight).shape
        whole = padded(_planes(weight), {0: channels + -channels % self.block})
        blocks = whole.reshape(-1, self.block, group, height, width)
        return blocks.permute(0, 3, 4, 2, 1).contiguous()


@dataclass(frozen=True)
class PackConv:
    """[G*OC, IC, KH, KW] -> [G][panels][blocks][KH][KW][c_in][width], zeros where a dimension pads.

    ``block``: channels a block of the output; ``c_in``: of the input (1: planar). ``width``: output
    channels a panel. Groups are padded to whole blocks, then to whole panels.
    """

    groups: int
    block: int
    c_in: int
    width: int

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        """The packed weight."""
        planes = _planes(weight)
        count, inputs, height, width = planes.shape
        outputs = count // self.groups
        grouped = planes.reshape(self.groups, outputs, inputs, height, width)
        whole = outputs + -outputs % self.block
        full = padded(grouped, {1: whole + -whole % self.width, 2: inputs + -inputs % self.c_in})
        blocks = full.reshape(self.groups, -1, self.width, full.shape[2] // self.c_in,
                                self.c_in, height, width)  # fmt: skip
        return blocks.permute(0, 1, 3, 5, 6, 4, 2).contiguous()


@dataclass(frozen=True)
class PackChannels:
    """A vector of C numbers, zero up to a multiple of the block: a bias."""

    block: int

    def __call__(self, vector: torch.Tensor) -> torch.Tensor:
        """The padded vector."""
        flat = vector.reshape(-1)
        return padded(flat, {0: flat.numel() + -flat.numel() % self.block}).contiguous()


@dataclass(frozen=True)
class PickTaps:
    """The weight of one phase of a convolution as that of a plain one of two dimensions.

    [O, I / G, kernel] (``transposed``: [I, O / G, kernel]) -> [O, KD * I' , KH, KW], where ``taps``
    names the rows of the kernel for depth, rows and columns (fewer dimensions: the last of them),
    ``merged`` groups become one (zeros between them), and the I' inputs of each depth tap are
    padded to ``block`` where there are several.
    """

    transposed: bool
    groups: int
    merged: int
    taps: tuple[tuple[int, ...], ...]
    block: int

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight to pack."""
        kernel = weight.reshape(*weight.shape[:2], *(1,) * (5 - weight.dim()), *weight.shape[2:])
        for dim, taps in enumerate(self.taps, 2):
            kernel = kernel.index_select(dim, torch.tensor(taps, dtype=torch.int64))
        grouped = kernel.unflatten(0, (self.groups, -1))
        if self.transposed:
            grouped = grouped.transpose(1, 2)  # [G, O / G, I / G, ...]
        _, outer, inner, *sizes = grouped.shape
        dense = torch.zeros(self.groups, outer, self.merged, inner, *sizes, dtype=weight.dtype)
        every = torch.arange(self.groups)
        dense[every, :, every % self.merged] = grouped
        inputs = self.merged * inner
        whole = dense.reshape(self.groups * outer, inputs, *sizes).transpose(1, 2)
        if sizes[0] > 1:
            whole = padded(whole, {2: inputs + -inputs % self.block})
        return whole.flatten(1, 2).contiguous()


@dataclass(frozen=True)
class Packed:
    """One pack function after another."""

    first: PickTaps
    second: Callable[[torch.Tensor], torch.Tensor]

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        """The packed weight."""
        return self.second(self.first(weight))


def _planes(weight: torch.Tensor) -> torch.Tensor:
    """A conv1d weight as one of conv2d with one row."""
    return weight.unsqueeze(2) if weight.dim() == 3 else weight


def pixel_table(
    tile: int, run: int, overlaps: int, batch: int, height: int, width: int, *strides: int
) -> npt.NDArray[np.int32]:
    """The byte offsets of output pixels in tensors: [tensors, tiles * tile].

    ``strides`` are (image, row, pixel) bytes of one tensor after the other. A tile stays within a
    run of ``run`` pixels; where it does not fit, the last pixel repeats, or (``overlaps``) it
    begins earlier.

    Raises OverflowError where an offset needs more than 31 bits.
    """
    image, row, pixel = np.indices((batch, height, width), dtype=np.int64).reshape(3, -1)
    starts = np.arange(0, run, tile)
    if overlaps:
        starts = np.minimum(starts, run - tile)
    inside = np.minimum(starts[:, None] + np.arange(tile), run - 1)
    places = (np.arange(0, len(image), max(run, 1))[:, None, None] + inside).reshape(-1)
    table = [
        image * strides[n] + row * strides[n + 1] + pixel * strides[n + 2]
        for n in range(0, len(strides), 3)
    ]
    whole: npt.NDArray[np.int64] = np.stack(table).take(places, axis=1)
    if whole.size and whole.max() >= 2**31:
        raise OverflowError("a plane of more than 2 GiB does not fit the pixel table")
    return whole.astype(np.int32)


def padded_groups(groups: int, inner: int, block: int) -> npt.NDArray[np.int64]:
    """The source channel of every channel once each group is padded to whole blocks (-1: none)."""
    channels = np.arange(groups * inner).reshape(groups, inner)
    return np.pad(channels, ((0, 0), (0, -inner % block)), constant_values=-1).reshape(-1)


def dense_groups(groups: int, inner: int, block: int) -> npt.NDArray[np.int64]:
    """The inverse of ``padded_groups``, up to whole blocks."""
    source = np.flatnonzero(padded_groups(groups, inner, block) >= 0)
    return np.pad(source, (0, -len(source) % block), constant_values=-1)


def repeated_channels(channels: int, times: int, block: int) -> npt.NDArray[np.int64]:
    """Every channel ``times`` over, up to whole blocks."""
    source = np.repeat(np.arange(channels), times)
    return np.pad(source, (0, -len(source) % block), constant_values=-1)


@dataclass(frozen=True)
class ChannelTable:
    """The table of ``GatherChannels``: byte offsets of the channels that one of three rules names.

    "pad": ``outer`` groups of ``inner`` channels, each padded to whole blocks; "unpad": its
    inverse; "repeat": each of ``outer`` channels ``inner`` times.
    """

    kind: str
    block: int

    def __call__(self, outer: int, inner: int, block_bytes: int) -> npt.NDArray[np.int32]:
        """The offsets for a source whose channel blocks are ``block_bytes`` apart."""
        rules = {"pad": padded_groups, "unpad": dense_groups, "repeat": repeated_channels}
        source = rules[self.kind](outer, inner, self.block)
        offset = source // self.block * block_bytes + source % self.block * 4
        return np.where(source < 0, -1, offset).astype(np.int32)


@dataclass(frozen=True)
class TakeTable:
    """The table of ``GatherChannels``: channel i is channel ``order[i]`` of all sources together.

    ``sizes``: the channels of each source.
    """

    order: tuple[int, ...]
    sizes: tuple[int, ...]
    block: int

    def __call__(self, *block_bytes: int) -> npt.NDArray[np.int32]:
        """The offsets for sources whose channel blocks are ``block_bytes`` apart; their numbers."""
        starts = np.cumsum((0, *self.sizes[:-1]))
        channels = np.array(self.order)
        source = np.searchsorted(starts, channels, side="right") - 1
        inside = channels - starts[source]
        offset = inside // self.block * np.array(block_bytes)[source] + inside % self.block * 4
        padding = (0, -len(channels) % self.block)
        table = np.stack([np.pad(offset, padding, constant_values=-1), np.pad(source, padding)])
        return table.astype(np.int32)
