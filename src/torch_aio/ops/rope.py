"""``aio.rope``: rotary position embedding of queries or keys, as ``torch.aio_rope`` calls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_library = torch.library.Library("aio", "FRAGMENT")  # lives as long as the process
_library.define("rope(Tensor x, Tensor position_ids, Scalar theta) -> Tensor")


def _rope(x: torch.Tensor, position_ids: torch.Tensor, theta: float) -> torch.Tensor:
    """Rotate pairs ``(x[.., i], x[.., i + width / 2])`` by position * theta**(-2i / width).

    ``x``: ``[batch, heads, length, width]``, ``position_ids``: integers ``[batch or 1, length]``.
    Computed in f32, the result in the dtype and strides of x (LLaMA's half-split layout; J. Su et
    al., RoFormer). RuntimeError where the operands do not fit.
    """
    _check(x, position_ids)
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    share = torch.arange(0, x.shape[-1], 2, dtype=wide, device=x.device) / x.shape[-1]
    angles = position_ids.unsqueeze(1).unsqueeze(-1) * torch.reciprocal(theta**share)
    cos, sin = angles.cos(), angles.sin()
    a, b = x.to(wide).chunk(2, -1)
    result = torch.empty_like(x)
    return result.copy_(torch.cat((a * cos - b * sin, b * cos + a * sin), -1))


def _like(x: torch.Tensor, position_ids: torch.Tensor, _theta: float) -> torch.Tensor:
    _check(x, position_ids)
    return torch.empty_like(x)


def _check(x: torch.Tensor, position_ids: torch.Tensor) -> None:
    if x.dim() != 4 or x.shape[3] % 2 or not x.dtype.is_floating_point:
        raise RuntimeError(
            "aio_rope: x must hold floating point numbers [batch, heads, length, even width], got "
            f"{x.dtype} {list(x.shape)}"
        )
    fits = position_ids.dim() == 2 and position_ids.shape[1] == x.shape[2]
    if not fits or position_ids.shape[0] not in (1, x.shape[0]) or not _is_integer(position_ids):
        raise RuntimeError(
            "aio_rope: position_ids must be integers [batch or 1, length] for x of shape "
            f"{list(x.shape)}, got {position_ids.dtype} {list(position_ids.shape)}"
        )


def _is_integer(tensor: torch.Tensor) -> bool:
    return tensor.dtype in (torch.int64, torch.int32)


class _WithoutBackward(torch.autograd.Function):
    """torch.library.register_autograd would do the same in 1.7 ms of every ``import torch``."""

    @staticmethod
    def forward(_context: Any, *args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.aio.rope.default(*args)

    @staticmethod
    def backward(_context: Any, *_: Any) -> Any:
        raise RuntimeError("aio_rope has no backward: it is for inference, call it under no_grad")


def _with_autograd(x: torch.Tensor, position_ids: torch.Tensor, theta: float) -> Any:
    if x.requires_grad and torch.is_grad_enabled():
        return _WithoutBackward.apply(x, position_ids, theta)
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.aio.rope.default(x, position_ids, theta)


_library.impl("rope", _rope, "CompositeExplicitAutograd")
_library.impl("rope", _like, "Meta")
_library.impl("rope", _with_autograd, "Autograd")
rope: Callable[..., torch.Tensor] = torch.ops.aio.rope.default
