"""TorchScript's numbers for dtypes, layouts and memory formats."""

from __future__ import annotations

from typing import Any

import torch

from torch_aio.capture.ts_values import Handover

# TorchScript knows dtypes, layouts and memory formats as these numbers (c10/core/ScalarType.h).
DTYPES: tuple[torch.dtype | None, ...] = (
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.float32,
    torch.float64,
    None,
    torch.complex64,
    torch.complex128,
    torch.bool,
    None,
    None,
    None,
    torch.bfloat16,
)
MEMORY_FORMATS = (
    torch.contiguous_format,
    torch.preserve_format,
    torch.channels_last,
    torch.channels_last_3d,
)


def dtype_of(code: Any) -> Any:
    """The dtype behind TorchScript's number."""
    if code is None or isinstance(code, torch.dtype):
        return code
    dtype = DTYPES[code] if 0 <= code < len(DTYPES) else None
    if dtype is None:
        raise Handover(f"dtype number {code} is left to PyTorch")
    return dtype


def layout_of(code: Any) -> Any:
    """The layout behind TorchScript's number; only strided ones are ours."""
    if code in (None, 0, torch.strided):
        return None if code is None else torch.strided
    raise Handover(f"layout number {code} is left to PyTorch")


def memory_format_of(code: Any) -> Any:
    """The memory format behind TorchScript's number."""
    return code if code is None or isinstance(code, torch.memory_format) else MEMORY_FORMATS[code]


def code_of(dtype: torch.dtype) -> int:
    """TorchScript's number of a dtype."""
    if dtype not in DTYPES:
        raise Handover(f"{dtype} is left to PyTorch")
    return DTYPES.index(dtype)
