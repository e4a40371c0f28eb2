"""The driver: one generated function that walks a step table inside one parallel region.

    for step in steps:
        step.kernel(step.args, bases, units * thread / team, units * (thread + 1) / team, thread)
        barrier, where the step's flag says so

A step is four i64: kernel address, address of its argument block, work units, barrier flag.
A job is five: bases, steps, number of steps, threads, and for the profiling driver the address of
one `struct timespec` more than there are steps. That driver puts a barrier behind every step and
reads the clock there: a step's time is that of its slowest thread.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.isa import Isa
from torch_aio.codegen.types import Value, i32, i64, ptr

if TYPE_CHECKING:
    from torch_aio.codegen.jit import Jit

STEP_SLOTS = 4
JOB_SLOTS = 5
CLOCK = 4
"""The job's slot for the clock."""
TIMESPEC = 16
"""Bytes of a `struct timespec`: seconds and nanoseconds, an i64 each."""
MONOTONIC = 1
JOB = {"job": ptr}


def compile_driver(
    jit: Jit, symbols: Mapping[str, int], clock: Mapping[str, int] | None = None
) -> Callable[[Any], None]:
    """The driver as a C function of the job's address; it releases the GIL while it runs.

    ``symbols`` are the OpenMP functions by address (none: one thread by direct call). With
    ``clock`` (the address of clock_gettime) it is the profiling driver.
    """
    isa, clock = jit.isa, clock or {}
    kind = "aio_timed_" if clock else "aio_"
    serial = jit.address(
        f"{kind}serial",
        lambda: walk(f"{kind}serial", isa, parallel=False, timed=bool(clock)),
        clock,
    )
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    if not symbols:
        return prototype(serial)
    body = jit.address(
        f"{kind}body",
        lambda: walk(f"{kind}body", isa, parallel=True, timed=bool(clock)),
        {**symbols, **clock},
    )
    addresses = {**symbols, f"{kind}body": body, f"{kind}serial": serial}
    return prototype(jit.address(f"{kind}run", lambda: run(kind, isa), addresses))


def walk(name: str, isa: Isa, *, parallel: bool, timed: bool = False) -> str:
    """The loop over steps, as one thread of the team runs it."""
    k = Builder(name, Params(""), isa, JOB)
    job = k.arguments["job"]
    bases, steps, count = (k.load(t, job, 8 * n) for n, t in enumerate((ptr, ptr, i64)))
    thread: Size = 0
    team: Size = 1
    if parallel:
        thread = k.cast(k.external("omp_get_thread_num", i32, []), i64)
        team = k.cast(k.external("omp_get_num_threads", i32, []), i64)
    if timed:
        _read_clock(k, thread, 0)
    with k.loop(0, count) as each:
        step = k.at(steps, k.mul(each.i, STEP_SLOTS * 8))
        kernel, args, units = (k.load(t, step, 8 * n) for n, t in enumerate((ptr, ptr, i64)))
        begin = k.udiv(k.mul(units, thread), team)
        end = k.udiv(k.mul(units, k.add(thread, 1)), team)
        with k.when(k.icmp("slt", k.size(begin), k.size(end))):
            k.call_pointer(kernel, [args, bases, *map(k.size, (begin, end, thread))])
        if parallel and timed:
            k.external("GOMP_barrier", None, [])
        elif parallel:
            with k.when(k.icmp("ne", k.load(i64, step, 24), 0)):
                k.external("GOMP_barrier", None, [])
        if timed:
            _read_clock(k, thread, k.add(each.i, 1))
    return k.module()


def _read_clock(k: Builder, thread: Size, position: Size) -> None:
    """Thread 0 stores the time at ``position``."""
    with k.when(k.icmp("eq", k.size(thread), 0)):
        stamps = k.load(ptr, k.arguments["job"], 8 * CLOCK)
        stamp = k.at(stamps, k.mul(position, TIMESPEC))
        k.external("clock_gettime", i32, [Value(i32, str(MONOTONIC)), stamp])


def run(kind: str, isa: Isa) -> str:
    """``aio_run(job)``: walk the steps on the job's number of threads."""
    k = Builder(f"{kind}run", Params(""), isa, JOB)
    job = k.arguments["job"]
    threads = k.load(i64, job, 24)
    alone = k.icmp("sle", threads, 1)
    with k.when(alone):
        k.call_pointer(k.address_of(f"{kind}serial", JOB), [job])
    with k.when(k.icmp("sgt", threads, 1)):
        body = k.address_of(f"{kind}body", JOB)
        team = k.cast(threads, i32)
        k.external("GOMP_parallel", None, [body, job, team, Value(i32, "0")])
    return k.module()
