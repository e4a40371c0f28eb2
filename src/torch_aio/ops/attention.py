"""``aio.attention``: attention as a model spells it out, in one operator."""

from __future__ import annotations

from typing import Any

import torch

from torch_aio.ir.shapes.inference import SHAPES
from torch_aio.ir.spec import TensorSpec, contiguous

_library = torch.library.Library("aio", "FRAGMENT")  # lives as long as the process
_library.define(
    "attention(Tensor q, Tensor k, Tensor v, Tensor? mask=None, *, float scale=1.0,"
    " float? fill=None) -> Tensor"
)


def _attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    scale: float = 1.0,
    fill: float | None = None,
) -> torch.Tensor:
    """softmax(q @ k.mT * scale (+ mask)) @ v for ``[.., length, width]`` operands.

    With ``fill`` the mask is boolean and a score is replaced by ``fill`` where it is False. Unlike
    scaled_dot_product_attention a row whose scores are all -inf is NaN, as softmax makes it.
    Of rank 4 the result lies in memory as ``[batch, length, heads, width]``.
    """
    scores = torch.matmul(q, k.transpose(-2, -1)) * scale
    if mask is not None:
        scores = scores + mask if fill is None else scores.masked_fill(~mask, fill)
    out = torch.matmul(torch.softmax(scores, -1), v)
    return out.transpose(1, 2).contiguous().transpose(1, 2) if out.ndim == 4 else out


def _shape(
    q: TensorSpec, k: TensorSpec, v: TensorSpec, mask: TensorSpec | None = None, **_: Any
) -> TensorSpec:
    """``[.., queries, width of v]``; of rank 4 the heads lie inside the length."""
    if q.ndim != 4:
        return contiguous((*q.shape[:-1], v.shape[-1]), q.dtype)
    batch, heads, length, width = *q.shape[:-1], v.shape[-1]
    dense = contiguous((batch, length, heads, width), q.dtype).stride
    return TensorSpec(
        (batch, heads, length, width), q.dtype, (dense[0], dense[2], dense[1], dense[3])
    )


SHAPES["aio::attention"] = _shape
_library.impl("attention", _attention, "CompositeExplicitAutograd")
attention = torch.ops.aio.attention.default
