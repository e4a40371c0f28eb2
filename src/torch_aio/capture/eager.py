"""``F.layer_norm(.., rms=True)`` and ``torch.aio_rope`` called outside of any graph.

Plain tensors go to our kernels. Whatever else looks on (a tracer, a tensor's subclass, autograd,
a function transform) gets PyTorch's operator, which it knows how to handle. What these functions
do beside their kernel is what a small call costs, so they look things up and decide nothing twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from torch_aio import switch
from torch_aio.capture import compat
from torch_aio.ops.rope import rope as spelled

if TYPE_CHECKING:
    from torch_aio.engine.eager import EagerOperator, Run

TENSORS = frozenset({torch.Tensor, torch.nn.Parameter})
F32 = torch.float32
TURNED = frozenset({torch.float32, torch.float16, torch.bfloat16})
MOST_SIZES = 4096
"""Sizes remembered."""

_hooked = False
_ready: dict[Any, Run] = {}
_operators: dict[Any, EagerOperator] = {}

_is_tracing, _modes, _transform = compat.is_tracing, compat.modes, compat.transform
_is_autocast = torch.is_autocast_enabled


def install() -> None:
    """Let these calls run on the engine."""
    global _hooked  # noqa: PLW0603 - PyTorch is hooked once per process
    _hooked = True


def rms_norm(
    x: torch.Tensor, shape: Sequence[int], weight: torch.Tensor | None, eps: float
) -> torch.Tensor:
    """``torch.rms_norm``; on our kernel where f32 rows of the last dimension are normalised."""
    if torch.compiler.is_compiling() or not _is_plain(x, x if weight is None else weight):
        return torch.rms_norm(x, shape, weight, eps)
    if x.dtype is not F32 or (weight is not None and weight.dtype is not F32):
        return torch.rms_norm(x, shape, weight, eps)
    key = x.shape, tuple(shape), eps, None if weight is None else weight.shape
    run = _ready.get(key) or _rms_norm_for(*key)
    if run is None:
        return torch.rms_norm(x, shape, weight, eps)
    x = x if x.is_contiguous() else x.contiguous()
    if weight is None:
        return run((x,))
    return run((x, weight if weight.is_contiguous() else weight.contiguous()))


def rope(x: torch.Tensor, position_ids: torch.Tensor, theta: Any) -> torch.Tensor:
    """``torch.ops.aio.rope``; on our kernel where x is f32, f16 or bf16."""
    if torch.compiler.is_compiling() or not _is_plain(x, x) or not _is_positions(position_ids):
        return spelled(x, position_ids, theta)
    inside = _is_inside(x)
    if inside is None:
        x = x.clone()
        inside = _is_inside(x)
    key = x.shape, position_ids.shape, theta, x.dtype, inside
    run = _ready.get(key) or _rope_for(*key)
    if run is None:
        return spelled(x, position_ids, theta)
    return run((x, position_ids if position_ids.is_contiguous() else position_ids.contiguous()))


def _is_inside(x: torch.Tensor) -> bool | None:
    """Whether the heads lie inside the length, in memory; None: neither way round."""
    if x.is_contiguous():
        return False
    return True if x.dim() == 4 and x.transpose(1, 2).is_contiguous() else None


def _is_plain(x: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether nothing but the numbers of an answer is asked for."""
    if not _hooked or not switch.on or _is_tracing() or _modes() or _transform() is not None:
        return False
    if type(x) not in TENSORS or type(other) not in TENSORS or _is_autocast("cpu"):
        return False
    if (x.requires_grad or other.requires_grad) and torch.is_grad_enabled():
        return False
    if x.layout is not torch.strided or other.layout is not torch.strided:
        return False
    return x.is_cpu and other.is_cpu and not x.is_neg() and not other.is_neg()


def _is_positions(ids: torch.Tensor) -> bool:
    return type(ids) in TENSORS and ids.dtype is torch.int64 and ids.is_cpu and ids.dim() == 2


def _rms_norm_for(
    sizes: torch.Size, shape: tuple[int, ...], eps: float, weight: torch.Size | None
) -> Run | None:
    fits = len(sizes) and shape == sizes[-1:] and weight in (None, shape)
    if not fits:
        return None
    key = "rms_norm", len(sizes), shape, eps, weight is None
    if key not in _operators:
        from torch_aio.engine import eager  # noqa: PLC0415 - the first call pays

        operator = eager.rms_norm(len(sizes), shape[0], eps, is_affine=weight is not None)
        _operators.setdefault(key, operator)
    return _remember((sizes, shape, eps, weight), _operators[key], sizes[:-1])


def _rope_for(
    sizes: torch.Size, positions: torch.Size, theta: Any, dtype: torch.dtype,
    inside: bool | None,
) -> Run | None:  # fmt: skip
    if inside is None or dtype not in TURNED or len(sizes) != 4:
        return None
    if not sizes[3] or sizes[3] % 2 or positions not in ((1, sizes[2]), (sizes[0], sizes[2])):
        return None
    key = "rope", sizes[3], float(theta), dtype, inside, positions[0] == 1
    if key not in _operators:
        from torch_aio.engine import eager  # noqa: PLC0415 - the first call pays

        operator = eager.rope(sizes[3], theta, dtype, inside=inside, is_shared=positions[0] == 1)
        _operators.setdefault(key, operator)
    return _remember((sizes, positions, theta, dtype, inside), _operators[key], sizes[:3])


def _remember(key: Any, operator: EagerOperator, sizes: Sequence[int]) -> Run | None:
    run = operator.run_for(sizes)
    if run is not None:
        if len(_ready) >= MOST_SIZES:
            _ready.clear()
        _ready[key] = run
    return run
