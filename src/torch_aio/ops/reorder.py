"""``aio.reorder(x, layout)``: the same values, laid out otherwise in memory; eager: a copy."""

from __future__ import annotations

import torch

# Lives as long as the process.
_library = torch.library.Library("aio", "FRAGMENT")
_library.define("reorder(Tensor x, str layout) -> Tensor")


def _reorder(x: torch.Tensor, layout: str) -> torch.Tensor:
    if layout not in ("plain", "blocked"):
        raise ValueError(f"unknown layout {layout!r}: 'plain' or 'blocked'")
    return x.clone()


_library.impl("reorder", _reorder, "CompositeExplicitAutograd")
reorder = torch.ops.aio.reorder.default
