"""``aio.embedding_bag``: the one answer of ``embedding_bag`` that inference reads."""

from __future__ import annotations

import torch

from torch_aio.ir.shapes.inference import SHAPES
from torch_aio.ir.spec import TensorSpec, contiguous

_library = torch.library.Library("aio", "FRAGMENT")  # lives as long as the process
_library.define(
    "embedding_bag(Tensor table, Tensor indices, Tensor offsets, int mode, Tensor? weights, "
    "bool include_last_offset, int padding) -> Tensor"
)


def _embedding_bag(
    table: torch.Tensor, indices: torch.Tensor, offsets: torch.Tensor, mode: int,
    weights: torch.Tensor | None, include_last_offset: bool, padding: int,
) -> torch.Tensor:  # fmt: skip
    """Sums (mode 0), means (1) or maxima (2) of rows of [rows, width] -> [bags, width].

    ``padding`` is a row that takes no part, -1 for none; ``weights``, one an index, of sums only.
    """
    found: torch.Tensor = torch.ops.aten._embedding_bag_forward_only(
        table, indices, offsets, False, mode, False, weights, include_last_offset, padding
    )[0]
    return found


def _shape(
    table: TensorSpec, indices: TensorSpec, offsets: TensorSpec, mode: int,
    weights: TensorSpec | None, include_last_offset: bool, padding: int,
) -> TensorSpec:  # fmt: skip
    bags = offsets.shape[0] - 1 if include_last_offset else offsets.shape[0]
    return contiguous((bags, table.shape[1]), table.dtype)


SHAPES["aio::embedding_bag"] = _shape
_library.impl("embedding_bag", _embedding_bag, "CompositeExplicitAutograd")
embedding_bag = torch.ops.aio.embedding_bag.default
