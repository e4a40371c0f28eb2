"""Values that vary by channel only, as the channel-blocked layout wants them: whole blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from torch_aio.ir.symbols import Int
from torch_aio.plan.value import Value


@dataclass(frozen=True)
class LaneMask:
    """Packs true for each of ``channels``, false for the padding lanes of the last block."""

    channels: int
    block: int

    def __call__(self) -> torch.Tensor:
        """The mask, one a lane."""
        lanes = -(-self.channels // self.block) * self.block
        return torch.arange(lanes) < self.channels


def channel_lanes(value: Value, channels: Int, block: int) -> Value:
    """Packed lanes as a blocked value that is the same for every pixel."""
    return replace(value, shape=(1, channels, 1, 1), stride=(0, block, 0, 0), block=block)
