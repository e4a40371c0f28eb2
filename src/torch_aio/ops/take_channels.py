"""``aio.take_channels``: channels of several tensors in a given order, one copy."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from torch_aio.ir.shapes.inference import SHAPES
from torch_aio.ir.spec import TensorSpec, contiguous

_library = torch.library.Library("aio", "FRAGMENT")  # lives as long as the process
_library.define("take_channels(Tensor[] xs, int[] order) -> Tensor")


def _take_channels(xs: Sequence[torch.Tensor], order: Sequence[int]) -> torch.Tensor:
    """Channel i is channel ``order[i]`` of ``cat(xs, 1)``."""
    return torch.cat(list(xs), 1)[:, list(order)].contiguous()


def _shape(xs: Sequence[TensorSpec], order: Sequence[int]) -> TensorSpec:
    batch, _, *plane = xs[0].shape
    return contiguous((batch, len(order), *plane), xs[0].dtype)


SHAPES["aio::take_channels"] = _shape
_library.impl("take_channels", _take_channels, "CompositeExplicitAutograd")
take_channels = torch.ops.aio.take_channels.default
