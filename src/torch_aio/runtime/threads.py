"""The team: libgomp as libtorch_cpu uses it, one team shared with ATen."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch

from torch_aio import log

SYMBOLS = ("GOMP_parallel", "GOMP_barrier", "omp_get_thread_num", "omp_get_num_threads")


@dataclass
class Team:
    """Addresses of the OpenMP functions the driver calls (empty: one thread by direct call)."""

    symbols: dict[str, int] = field(default_factory=dict)
    forked: bool = False

    def size(self) -> int:
        """Threads for a call from this thread, read at each call."""
        return 1 if self.forked or not self.symbols else torch.get_num_threads()


@cache
def team() -> Team:
    """The process's team.

    A forked child of a process with OpenMP threads would hang in GOMP_parallel: it runs alone.
    """
    symbols = _resolve()
    if not symbols:
        log.notice_once("openmp", "torch has no GNU OpenMP runtime here: kernels run on one thread")
    result = Team(symbols)

    def after_fork() -> None:
        result.forked = True
        log.notice_once("fork", "a forked process runs kernels on one thread (libgomp hangs there)")

    os.register_at_fork(after_in_child=after_fork)
    return result


def _resolve() -> dict[str, int]:
    """The symbols on the handle of libtorch_cpu: what its own calls bind to."""
    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        functions = {name: getattr(library, name) for name in SYMBOLS}
    except (OSError, AttributeError):
        return {}
    found = {n: ctypes.cast(f, ctypes.c_void_p).value for n, f in functions.items()}
    return {n: address for n, address in found.items() if address}
