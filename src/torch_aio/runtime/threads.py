"""The team: libgomp as libtorch_cpu uses it, one team shared with ATen."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch

from torch_aio import log
from torch_aio.runtime.binding import bind_first_team

SYMBOLS = ("GOMP_parallel", "GOMP_barrier", "omp_get_thread_num", "omp_get_num_threads")


@dataclass
class Team:
    """Addresses of the OpenMP functions the driver calls (empty: one thread by direct call).

    ``used``: a parallel region of ours ran, so libgomp has worker threads.
    """

    symbols: dict[str, int] = field(default_factory=dict)
    forked: bool = False
    used: bool = False

    def size(self) -> int:
        """Threads for a call from this thread, read at each call."""
        return 1 if self.forked or not self.symbols else torch.get_num_threads()

    def enter(self, size: int) -> None:
        """Prepare for runs of ``size`` threads from the calling thread."""
        if self.forked:
            text = "a forked process runs kernels on one thread (libgomp hangs there)"
            log.notice_once("fork", text)
        if size > 1:
            self.used = True
            bind_first_team(self.symbols, size)

    def after_fork(self) -> None:
        """Stay on one thread in a forked child, and ATen as well.

        A region of more would wait for workers that the child does not have, in ATen too.
        """
        self.forked = True
        if self.used:
            torch.set_num_threads(1)


@cache
def team() -> Team:
    """The process's team.

    A forked child of a process with OpenMP threads would hang in GOMP_parallel: it runs alone.
    """
    symbols = _resolve()
    if not symbols:
        log.notice_once("openmp", "torch has no GNU OpenMP runtime here: kernels run on one thread")
    result = Team(symbols)
    os.register_at_fork(after_in_child=result.after_fork)
    return result


def clock() -> dict[str, int]:
    """The address of libc's clock_gettime, by name."""
    function = ctypes.CDLL(None).clock_gettime
    return {"clock_gettime": ctypes.cast(function, ctypes.c_void_p).value or 0}


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
