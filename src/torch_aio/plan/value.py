"""Where a value lies: buffers, and typed views of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from torch_aio.ir.spec import TensorSpec, contiguous_stride
from torch_aio.ir.symbols import Int, product
from torch_aio.kernels.spec import KernelSpec

BufferKind = Literal["input", "output", "constant", "arena", "error"]


@dataclass(eq=False)
class Buffer:
    """A piece of memory of one call: input, output, constant, part of the arena, error word.

    ``bytes`` may hold symbols. ``index`` is the position among the buffers of its kind.
    """

    kind: BufferKind
    bytes: Int
    index: int
    label: str = ""


@dataclass(frozen=True)
class Value:
    """A tensor in a buffer.

    ``block == 0``: plain strided, ``stride`` in elements, one a dimension.
    ``block == c``: the channel-blocked layout [N][C/c][H][W][c] of a logical [N, C, H, W] (or
    [N, C, L]: H is 1; of three dimensions: ``folded``) tensor; ``stride`` holds (batch, channel
    block, row, pixel) in elements, the c channels of a pixel lie together, and lanes past C hold
    zeros.
    ``offset`` is in bytes.
    """

    buffer: Buffer
    shape: tuple[Int, ...]
    dtype: torch.dtype
    stride: tuple[Int, ...]
    offset: Int = 0
    block: int = 0

    @property
    def itemsize(self) -> int:
        """Bytes an element."""
        return self.dtype.itemsize

    @property
    def byte_stride(self) -> tuple[Int, ...]:
        """``stride`` in bytes."""
        return tuple(s * self.itemsize for s in self.stride)

    @property
    def spec(self) -> TensorSpec:
        """Shape, dtype and strides of a plain value."""
        return TensorSpec(self.shape, self.dtype, self.stride)

    @property
    def is_contiguous(self) -> bool:
        """Whether a plain value lies in row-major order without gaps."""
        return not self.block and self.spec.is_contiguous

    def view(self, shape: tuple[Int, ...], stride: tuple[Int, ...], offset: Int = 0) -> Value:
        """The same memory seen with another shape and strides, ``offset`` elements further."""
        return replace(
            self, shape=shape, stride=stride, offset=self.offset + offset * self.itemsize
        )

    def channels(self, first: int, count: Int) -> Value:
        """Channels of a blocked value, from a whole block on."""
        shape = (self.shape[0], count, *self.shape[2:])
        offset = first // self.block * self.byte_stride[1]
        return replace(self, shape=shape, offset=self.offset + offset)

    def expand(self, shape: tuple[Int, ...]) -> Value:
        """Broadcast a plain value to ``shape`` with strides of zero."""
        missing = len(shape) - len(self.shape)
        sizes = (1,) * missing + self.shape
        strides = (0,) * missing + self.stride
        kept = tuple(
            0 if have == 1 and want != 1 else s
            for have, want, s in zip(sizes, shape, strides, strict=True)
        )
        return replace(self, shape=shape, stride=kept)


def folded(shape: tuple[Int, ...]) -> tuple[Int, ...]:
    """The shape in which a tensor is blocked: [N, C, D, H, W] as N * D images [N * D, C, H, W]."""
    if len(shape) < 5:
        return shape
    batch, channels, depth, height, width = shape
    return batch * depth, channels, height, width


def plain(buffer: Buffer, shape: tuple[Int, ...], dtype: torch.dtype) -> Value:
    """A row-major value that begins its buffer."""
    return Value(buffer, shape, dtype, contiguous_stride(shape))


@dataclass(frozen=True)
class Scratch:
    """Memory of each thread for one step: ``bytes`` a thread."""

    bytes: Int


Argument = Value | Scratch | Int | float


@dataclass(eq=False)
class Step:
    """One kernel call over ``units`` work units, split over the team.

    ``reads`` and ``writes`` are the buffers it touches; steps that write the same buffer write
    disjoint parts of it. ``phase`` numbers the stretches between barriers.
    """

    spec: KernelSpec
    units: Int
    arguments: dict[str, Argument]
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]
    label: str = ""
    phase: int = field(default=0)

    def flat(self) -> list[Argument]:
        """The arguments in the order of the kernel's parameters."""
        return [self.arguments[name] for name in self.spec.params.kinds]


def size_of(shape: tuple[Int, ...], dtype: torch.dtype) -> Int:
    """Bytes of a dense tensor."""
    return product(shape) * dtype.itemsize
