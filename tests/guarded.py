"""Tensors that end where their memory ends: one byte further is a page that cannot be touched."""

from __future__ import annotations

import ctypes
import mmap

import torch

_libc = ctypes.CDLL(None, use_errno=True)
_keep: list[mmap.mmap] = []


def guarded(tensor: torch.Tensor) -> torch.Tensor:
    """A copy, row-major, whose last byte is the last before an inaccessible page."""
    size = tensor.numel() * tensor.element_size()
    pages = -(-max(size, 1) // mmap.PAGESIZE)
    area = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    _keep.append(area)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    fence = ctypes.c_void_p(start + pages * mmap.PAGESIZE)
    assert _libc.mprotect(fence, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    memory = torch.frombuffer(area, dtype=torch.uint8, count=pages * mmap.PAGESIZE)
    result = memory[pages * mmap.PAGESIZE - size :].view(tensor.dtype).view(tensor.shape)
    return result.copy_(tensor)
