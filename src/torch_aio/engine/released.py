"""Weights whose memory was given back (``release_weights``).

Such a tensor keeps shape and dtype but has no storage: PyTorch raises ``MESSAGE`` where anything
reads or writes it. Memory that another tensor shares lives as long as that one. New data
(``load_state_dict(assign=True)``, ``p.data = ...``) makes it an ordinary weight again.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from torch_aio import log
from torch_aio.errors import ReleasedError

MESSAGE = (
    "the memory of these weights was given back (release_weights): only what the compiled graphs "
    "packed is left. To run eager, copy, save, refresh or compile them for something else, compile "
    "without release_weights, or give them new data: load_state_dict(..., assign=True)"
)

has_storage = torch._C._has_storage
take_storage = getattr(torch._C, "_set_storage_access_error_msg", None)  # since 2.14


def release(tensors: Iterable[torch.Tensor]) -> bool:
    """Give the memory of the tensors back to the system, where nothing else holds it.

    False, after a notice, where this PyTorch has no way to.
    """
    if take_storage is None:
        text = f"PyTorch {torch.__version__} cannot release weights: they stay (release_weights)"
        log.notice_once("release", text)
        return False
    for tensor in tensors:
        if has_storage(tensor):
            take_storage(tensor, MESSAGE)
    trim()
    return True


@contextmanager
def named(graph: str) -> Iterator[None]:
    """Raise ReleasedError, naming the graph, for what PyTorch says of a released weight."""
    try:
        yield
    except RuntimeError as error:
        if MESSAGE in str(error):
            raise ReleasedError(f"{graph}: {MESSAGE}") from error
        raise


def trim() -> None:
    """Give free memory back to the system: glibc keeps what lies below memory in use."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
