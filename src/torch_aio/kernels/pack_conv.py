"""Weights of convolutions, packed once for the kernels that read them; bias vectors likewise.

Each class is a pack function that is hashable by value: ``PackConv(...)(weight) -> tensor``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True)
class PackDepthwise:
    """[C, group, KH, KW] -> [C/c][KH][KW][group][c], zero past the last channel."""

    block: int

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        """The packed weight."""
        channels, group, height, width = _planes(weight).shape
        padded = functional.pad(_planes(weight), (0, 0, 0, 0, 0, 0, 0, -channels % self.block))
        blocks = padded.reshape(-1, self.block, group, height, width)
        return blocks.permute(0, 3, 4, 2, 1).contiguous()


@dataclass(frozen=True)
class PackChannels:
    """A vector of C numbers, zero up to a multiple of the block: a bias."""

    block: int

    def __call__(self, vector: torch.Tensor) -> torch.Tensor:
        """The padded vector."""
        flat = vector.reshape(-1)
        return functional.pad(flat, (0, -flat.numel() % self.block)).contiguous()


def _planes(weight: torch.Tensor) -> torch.Tensor:
    """A conv1d weight as one of conv2d with one row."""
    return weight.unsqueeze(2) if weight.dim() == 3 else weight
