"""AIO_NUM_THREADS is PyTorch's thread count: one team serves both."""

from __future__ import annotations

import torch

from torch_aio.config import Settings

_applied: int | None = None


def apply(settings: Settings) -> None:
    """Give AIO_NUM_THREADS to PyTorch, once per value: a later `torch.set_num_threads` stands."""
    global _applied  # noqa: PLW0603 - one thread count per process
    if settings.num_threads is not None and settings.num_threads != _applied:
        _applied = settings.num_threads
        torch.set_num_threads(settings.num_threads)
