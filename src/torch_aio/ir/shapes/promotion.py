"""Type promotion: eager's ``result_type`` over specs and Python scalars."""

from __future__ import annotations

from typing import Any

import torch

from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Expr


def result_type(*operands: Any) -> torch.dtype:
    """The common dtype: tensors with dimensions rule over 0-d ones, those over Python scalars.

    A lower category only counts where it is of a higher kind (bool < int < float < complex).
    """
    sized = zero = number = None
    for x in operands:
        if x is None:
            continue
        if not isinstance(x, TensorSpec):
            number = _promote(number, scalar_type(x))
        elif x.shape:
            sized = _promote(sized, x.dtype)
        else:
            zero = _promote(zero, x.dtype)
    result = _combine(sized, _combine(zero, number))
    assert result is not None, "no operand has a type"
    return result


def scalar_type(value: Any) -> torch.dtype:
    """The dtype that a Python scalar brings along."""
    if isinstance(value, bool):
        return torch.bool
    if isinstance(value, (int, Expr)):
        return torch.int64
    if isinstance(value, complex):
        return torch.complex64 if torch.get_default_dtype() == torch.float32 else torch.complex128
    return torch.get_default_dtype()


def float_type(dtype: torch.dtype) -> torch.dtype:
    """``dtype``, or the default float for integers and bools."""
    return dtype if dtype.is_floating_point or dtype.is_complex else torch.get_default_dtype()


def sum_type(dtype: torch.dtype) -> torch.dtype:
    """What ``sum``, ``prod`` and ``cumsum`` return for ``dtype``: integers and bools widen."""
    return dtype if dtype.is_floating_point or dtype.is_complex else torch.int64


def _promote(a: torch.dtype | None, b: torch.dtype) -> torch.dtype:
    return b if a is None or a is b else torch.promote_types(a, b)


def _combine(higher: torch.dtype | None, lower: torch.dtype | None) -> torch.dtype | None:
    if lower is None or higher is None:
        return lower if higher is None else higher
    if higher.is_complex:
        return higher
    if higher.is_floating_point:
        return higher.to_complex() if lower.is_complex else higher
    if higher is torch.bool or lower.is_floating_point or lower.is_complex:
        return torch.promote_types(higher, lower)
    return higher
