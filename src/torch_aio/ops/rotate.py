"""``aio.rotate``: pairs of numbers, half a row apart, turned by tables of cosines and sines."""

from __future__ import annotations

from typing import Any

import torch

from torch_aio.ir.shapes.inference import SHAPES
from torch_aio.ir.shapes.pointwise import pointwise
from torch_aio.ir.spec import TensorSpec, contiguous

_library = torch.library.Library("aio", "FRAGMENT")  # lives as long as the process
_library.define("rotate(Tensor x, Tensor cos, Tensor sin) -> Tensor")


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x * cos + cat((-b, a), -1) * sin for x = cat((a, b), -1).

    The tables broadcast to x, which they do not enlarge; of half its width they serve both halves.
    The result is of x's dtype, also where the tables are of a wider one.
    """
    cos, sin = (torch.cat((t, t), -1) if t.shape[-1] * 2 == x.shape[-1] else t for t in (cos, sin))
    a, b = x.chunk(2, -1)
    return (x * cos + torch.cat((-b, a), -1) * sin).to(x.dtype)


def _shape(x: TensorSpec, cos: TensorSpec, sin: TensorSpec) -> TensorSpec:
    """What the sum of the two products has."""
    cos, sin = (
        t if t.shape[-1] == x.shape[-1] else contiguous((*t.shape[:-1], x.shape[-1]), t.dtype)
        for t in (cos, sin)
    )
    first = pointwise(x, cos, dtype=None)
    second = pointwise(contiguous(x.shape, x.dtype), sin, dtype=None)
    return pointwise(first, second, dtype=x.dtype)


def _like_first(x: TensorSpec, *_: Any) -> TensorSpec:
    return pointwise(x, dtype=x.dtype)


SHAPES["aio::rotate"] = _shape
SHAPES["aio::rope"] = _like_first
_library.impl("rotate", _rotate, "CompositeExplicitAutograd")
rotate = torch.ops.aio.rotate.default
