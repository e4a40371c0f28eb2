"""Tensors in the channel-blocked layout, for tests of the kernels that read and write it."""

from __future__ import annotations

import ctypes
import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torch_aio.kernels.chain import Chain, Input, Step
from torch_aio.kernels.pack_conv import PackChannels

BYTES = 4
SIGMOID_ADD = Chain(
    (Input("f32", "full"), Input("f32", "channel"), Input("f32", "full"), Input("f32", "full")),
    (Step("add", (0, 1), "f32"), Step("sigmoid", (4,), "f32"), Step("add", (5, 2), "f32"),
     Step("mul", (6, 3), "f32")),
)  # fmt: skip
"""An epilogue of a bias and two operands like the result, with f(0) != 0."""


@dataclass
class Blocked:
    """A logical [N, C, H, W] tensor in memory as [N][C/c][H + 2 top][W + 2 left][c]."""

    storage: torch.Tensor
    channels: int
    top: int
    left: int

    @property
    def pointer(self) -> tuple[torch.Tensor, int]:
        """The argument that points at the first inner pixel."""
        _, _, _, row, c = self.storage.shape
        return self.storage, (self.top * row + self.left) * c * BYTES

    def strides(self, prefix: str) -> dict[str, int]:
        """The byte strides, as arguments ``<prefix>_batch``, ``_block`` and ``_row``."""
        batch, block, row, _, _ = (s * BYTES for s in self.storage.stride())
        return {f"{prefix}_batch": batch, f"{prefix}_block": block, f"{prefix}_row": row}

    def logical(self) -> torch.Tensor:
        """The [N, C, H, W] tensor; asserts that padding lanes hold zeros."""
        n, blocks, rows, columns, c = self.storage.shape
        inner = self.storage[:, :, self.top : rows - self.top, self.left : columns - self.left]
        whole = inner.permute(0, 1, 4, 2, 3).reshape(n, blocks * c, *inner.shape[2:4])
        assert (whole[:, self.channels :] == 0).all(), "padding lanes are not zero"
        return whole[:, : self.channels].clone()


def empty(shape: tuple[int, ...], c: int, top: int = 0, left: int = 0, behind: int = 0) -> Blocked:
    """Memory for a result, filled with NaN, the halo with zeros; it ends at a guard page.

    ``behind`` pixels of NaN lie between it and the page.
    """
    n, channels, height, width = shape
    sizes = (n, -(-channels // c), height + 2 * top, width + 2 * left, c)
    memory = guarded((math.prod(sizes) + behind * c,)).fill_(float("nan"))
    storage = memory[: math.prod(sizes)].view(sizes)
    storage.zero_()
    storage[:, :, top : top + height, left : left + width] = float("nan")
    return Blocked(storage, channels, top, left)


def blocked(x: torch.Tensor, c: int, top: int = 0, left: int = 0, behind: int = 0) -> Blocked:
    """``x`` in the blocked layout, with a halo of zeros; see ``empty``."""
    n, channels, height, width = x.shape
    out = empty(tuple(x.shape), c, top, left, behind)
    padded = torch.nn.functional.pad(x, (0, 0, 0, 0, 0, -channels % c))
    inner = padded.reshape(n, -1, c, height, width).permute(0, 1, 3, 4, 2)
    out.storage[:, :, top : top + height, left : left + width] = inner
    return out


def operands(c: int, *, rows: bool, bias: torch.Tensor, full: Sequence[Blocked]) -> dict[str, Any]:
    """The arguments of an epilogue's operands: e1 is ``bias``, e2 .. are ``full``.

    ``rows``: the kernel takes row strides.
    """
    arguments: dict[str, Any] = {
        "e1": PackChannels(c)(bias), "e1_batch": 0, "e1_block": c * BYTES
    }  # fmt: skip
    for n, operand in enumerate(full, 2):
        arguments |= {f"e{n}": operand.pointer, **operand.strides(f"e{n}")}
        if not rows:
            del arguments[f"e{n}_row"]
    return arguments


_POOLS: list[mmap.mmap] = []  # kept for the life of the process: tensors point into them


def guarded(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A contiguous tensor whose last byte is followed by a page that may not be touched."""
    page, size = mmap.PAGESIZE, math.prod(shape) * dtype.itemsize
    pages = -(-max(size, 1) // page)
    pool = mmap.mmap(-1, (pages + 1) * page)
    whole = torch.frombuffer(pool, dtype=torch.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    guard = ctypes.c_void_p(whole.data_ptr() + pages * page)
    assert libc.mprotect(guard, ctypes.c_size_t(page), 0) == 0
    _POOLS.append(pool)
    start = pages * page - size
    return whole[start : start + size].view(dtype).view(shape)
