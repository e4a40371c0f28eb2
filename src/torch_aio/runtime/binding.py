"""Threads of the team on one core each, and memory on one NUMA node.

Only the workers of the first team are bound. The calling thread keeps its mask: what it starts
later, threads and processes alike, would inherit a one-core mask. It has the first core of the list
to itself, so the scheduler finds it there.
"""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
import platform
import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch_aio import config, cpu, log
from torch_aio.config import Settings

_SYS_MBIND = {"x86_64": 237, "aarch64": 235}
_MPOL_PREFERRED = 1
_MPOL_MF_MOVE = 2


class Placement(NamedTuple):
    """The core of each thread (empty: none is bound), or why not; ``asked``: the user did."""

    cores: tuple[int, ...]
    reason: str = ""
    asked: bool = False


class _Once:
    """Whether the first team was met."""

    def __init__(self) -> None:
        self.done = not hasattr(os, "sched_setaffinity")
        self.lock = threading.Lock()


_once = _Once()


def bind_first_team(symbols: Mapping[str, int], size: int) -> None:
    """Bind the workers of the calling thread's team, if it is the first one of several threads.

    ``symbols`` are the OpenMP functions by address. To be called before the first parallel region.
    """
    if _once.done or size < 2 or not symbols:
        return
    with _once.lock:
        first, _once.done = not _once.done, True
    if not first:
        return
    placement = place(
        size,
        config.read(),
        cpu.affinity(),
        cpu.first_threads(),
        cpu.cpu_limit(),
        os.getloadavg()[0],
    )
    if placement.reason:
        level = logging.WARNING if placement.asked else logging.DEBUG
        log.notice_once(
            "binding", f"threads are not bound to cores: {placement.reason}", level=level
        )
    if placement.cores:
        _bind(symbols, placement.cores)
        log.debug("worker threads are bound to the cores %s", placement.cores[1:])


def place(
    size: int,
    settings: Settings,
    allowed: Sequence[int],
    firsts: Sequence[int],
    limit: float | None,
    load: float = 0.0,
) -> Placement:
    """The cores of a team of ``size`` threads.

    ``allowed`` are the CPUs of the process's mask, ``firsts`` one of each core among them,
    ``limit`` the CPUs' time that its control group grants, ``load`` how many threads of the machine
    ran at once of late. More than the team could be: other processes run here, and a bound worker
    waits for its core while another is free, and the team for the worker (ResNet-50 on 2 cores
    shared with 4 processes: 46 to 345 ms a call, unbound 46 to 200).
    """
    if not settings.cpu_bind:
        return Placement((), "AIO_CPU_BIND is 0")
    asked = bool({"cpu_bind", "numa_cpus"} & settings.given)
    if config.openmp_binds():
        reason = "OMP_PROC_BIND, OMP_PLACES or GOMP_CPU_AFFINITY places them"
        return Placement((), reason, asked)
    if settings.numa_cpus is not None:
        return _listed(size, settings.numa_cpus, allowed)
    cores = tuple(firsts if size <= len(firsts) else allowed)
    if size > len(cores):
        return Placement((), f"there are {size} threads for {len(cores)} CPUs", asked)
    if not asked and size < len(firsts):
        reason = (
            f"{size} threads do not fill the process's {len(firsts)} cores (AIO_CPU_BIND=1 binds)"
        )
        return Placement((), reason)
    if not asked and limit is not None and limit < size:
        return Placement((), f"the control group grants {limit:g} CPUs for {size} threads")
    if not asked and load > size + 0.5:
        return Placement((), f"other processes run here: {load:.1f} threads for {size} of ours")
    return Placement(cores[:size])


def _listed(size: int, listed: Sequence[int], allowed: Sequence[int]) -> Placement:
    text = f"AIO_NUMA_CPUS={' '.join(map(str, listed))!r}"
    absent = [str(core) for core in listed[:size] if core not in allowed]
    if absent:
        ours = " ".join(map(str, allowed))
        reason = f"{text} names CPU {', '.join(absent)}, this process may use {ours}"
        return Placement((), reason, asked=True)
    if len(listed) < size:
        return Placement((), f"{text} has fewer CPUs than the {size} threads", asked=True)
    return Placement(tuple(listed[:size]))


def _bind(symbols: Mapping[str, int], cores: Sequence[int]) -> None:
    """One parallel region in which every worker binds itself."""
    number = ctypes.PYFUNCTYPE(ctypes.c_int)(symbols["omp_get_thread_num"])
    failures: list[OSError] = []

    def bind_worker(_: int) -> None:
        thread = number()
        if 0 < thread < len(cores):
            try:
                os.sched_setaffinity(0, {cores[thread]})
            except OSError as error:
                failures.append(error)

    body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(bind_worker)
    region = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    region(symbols["GOMP_parallel"])(ctypes.cast(body, ctypes.c_void_p), None, len(cores), 0)
    if failures:
        log.notice_once("binding", f"threads are not bound to cores: {failures[0]}")


def bind_memory(address: int, size: int) -> None:
    """Ask for the whole pages of a piece of memory on NUMA node 0, where AIO_MEM_BIND=1 was set.

    Unset it binds nothing: pages lie on the node that first writes them, which is the right one
    for a process that numactl keeps on any node.
    """
    settings = config.read()
    if "mem_bind" not in settings.given or not settings.mem_bind or len(cpu.numa_nodes()) < 2:
        return
    number = _SYS_MBIND.get(platform.machine())
    start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (address + size) // mmap.PAGESIZE * mmap.PAGESIZE - start
    if number is None or length <= 0:
        return
    nodes = ctypes.c_ulong(1)
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    word = ctypes.c_ulong
    failed = syscall(
        ctypes.c_long(number), word(start), word(length), word(_MPOL_PREFERRED),
        ctypes.byref(nodes), word(64), word(_MPOL_MF_MOVE),
    )  # fmt: skip
    if failed:
        reason = os.strerror(ctypes.get_errno())
        log.notice_once("mem_bind", f"memory is not bound to NUMA node 0: {reason}")
