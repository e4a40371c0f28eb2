"""What the graph knows of a tensor without holding it: shape, strides, dtype."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from torch_aio.ir.symbols import Int, product


@dataclass(frozen=True)
class TensorSpec:
    """A strided CPU tensor: ``shape`` and ``stride`` in elements, symbols allowed."""

    shape: tuple[Int, ...]
    dtype: torch.dtype
    stride: tuple[Int, ...]

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def numel(self) -> Int:
        """The number of elements."""
        return product(self.shape)

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie in row-major order without gaps."""
        if any(size == 0 for size in self.shape):
            return True
        expected: Int = 1
        for size, stride in zip(reversed(self.shape), reversed(self.stride), strict=True):
            if size != 1:
                if stride != expected:
                    return False
                expected = expected * size
        return True


def contiguous(shape: tuple[Int, ...], dtype: torch.dtype) -> TensorSpec:
    """The spec of a row-major tensor of this shape."""
    return TensorSpec(tuple(shape), dtype, contiguous_stride(tuple(shape)))


def contiguous_stride(shape: tuple[Int, ...]) -> tuple[Int, ...]:
    """Row-major strides, in elements, as torch gives them (a size of 0 counts as 1)."""
    strides: list[Int] = []
    step: Int = 1
    for size in reversed(shape):
        strides.append(step)
        step = step * (1 if size == 0 else size)
    return tuple(reversed(strides))
