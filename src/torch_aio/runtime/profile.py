"""Time per step: `AIO_PROFILER=1` when a model is compiled, `report()` when it has run.

A step's row is its kernel and the graph's node; operators left to ATen have rows as well. Off, it
costs nothing: a network then holds the plain driver.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from torch_aio.runtime.driver import CLOCK, JOB_SLOTS

Take = Callable[[Sequence[int]], None]

_lock = threading.Lock()
_times: dict[tuple[str, str], list[int]] = {}  # (kernel, node) -> [calls, nanoseconds]


class Recorder:
    """Stands for the driver: ``run`` (the profiling driver) of a job of ``steps`` steps.

    ``take`` gets the nanoseconds of each step after each run.
    """

    def __init__(self, run: Callable[[Any], None], steps: int, take: Take) -> None:
        self._run, self._steps, self._take = run, steps, take

    def __call__(self, job_address: ctypes.c_void_p) -> None:
        """Run the job."""
        stamps = np.zeros((self._steps + 1, 2), dtype=np.int64)
        job = (ctypes.c_int64 * JOB_SLOTS).from_address(job_address.value or 0)
        job[CLOCK] = stamps.ctypes.data
        self._run(job_address)
        self._take(np.diff(stamps @ np.array([1_000_000_000, 1])).tolist())


def by_step(steps: Sequence[tuple[str, str]]) -> Take:
    """Note times of steps that are (kernel name, node label)."""
    return lambda spent: note(zip(steps, spent, strict=True))


def timed(call: Callable[..., Any], kernel: str, label: str) -> Callable[..., Any]:
    """``call`` with its time noted."""

    def run(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter_ns()
        try:
            return call(*args, **kwargs)
        finally:
            note([((kernel, label), time.perf_counter_ns() - start)])

    return run


def note(spent: Any) -> None:
    """Add pairs of ((kernel, node), nanoseconds)."""
    with _lock:
        for row, nanoseconds in spent:
            entry = _times.setdefault(row, [0, 0])
            entry[0] += 1
            entry[1] += nanoseconds


def totals() -> dict[tuple[str, str], tuple[int, int]]:
    """Calls and nanoseconds since the last reset, by (kernel, node)."""
    with _lock:
        return {row: (calls, ns) for row, (calls, ns) in _times.items()}


def reset() -> None:
    """Forget all times."""
    with _lock:
        _times.clear()


def report() -> str:
    """The profile as a table, the longest total first: kernel, node, calls, ms, share."""
    rows = sorted(totals().items(), key=lambda item: -item[1][1])
    if not rows:
        return "torch_aio: no profile: set AIO_PROFILER=1 before models are compiled"
    total = sum(ns for _, (_, ns) in rows) or 1
    table = [("kernel", "node", "calls", "total ms", "share")]
    table += [
        (kernel, label, str(calls), f"{ns / 1e6:.3f}", f"{ns / total:.1%}")
        for (kernel, label), (calls, ns) in rows
    ]
    table.append(("total", "", "", f"{total / 1e6:.3f}", ""))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(_line(row, widths) for row in table)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.rjust(width) if i > 1 else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
