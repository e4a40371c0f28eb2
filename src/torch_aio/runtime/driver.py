"""The driver: one generated function that walks a step table inside one parallel region.

    for step in steps:
        step.kernel(step.args, bases, units * thread / team, units * (thread + 1) / team, thread)
        barrier, where the step's flag says so

A step is four i64: kernel address, address of its argument block, work units, barrier flag.
A job is five: bases, steps, number of steps, threads, clock (address of one i64 pair a step or 0).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.isa import Isa
from torch_aio.codegen.types import Value, i32, i64, ptr

if TYPE_CHECKING:
    from torch_aio.codegen.jit import Jit

STEP_SLOTS = 4
JOB_SLOTS = 4
JOB = {"job": ptr}


def compile_driver(jit: Jit, symbols: dict[str, int]) -> Callable[[int], None]:
    """The driver as a C function of the job's address; it releases the GIL while it runs."""
    isa = jit.isa
    serial = jit.address("aio_serial", lambda: walk("aio_serial", isa, parallel=False))
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    if not symbols:
        return prototype(serial)
    body = jit.address("aio_body", lambda: walk("aio_body", isa, parallel=True), symbols)
    addresses = {**symbols, "aio_body": body, "aio_serial": serial}
    return prototype(jit.address("aio_run", lambda: run(isa), addresses))


def walk(name: str, isa: Isa, *, parallel: bool) -> str:
    """The loop over steps, as one thread of the team runs it."""
    k = Builder(name, Params(""), isa, JOB)
    job = k.arguments["job"]
    bases, steps, count = (k.load(t, job, 8 * n) for n, t in enumerate((ptr, ptr, i64)))
    thread: Size = 0
    team: Size = 1
    if parallel:
        thread = k.cast(k.external("omp_get_thread_num", i32, []), i64)
        team = k.cast(k.external("omp_get_num_threads", i32, []), i64)
    with k.loop(0, count) as each:
        step = k.at(steps, k.mul(each.i, STEP_SLOTS * 8))
        kernel, args, units = (k.load(t, step, 8 * n) for n, t in enumerate((ptr, ptr, i64)))
        begin = k.udiv(k.mul(units, thread), team)
        end = k.udiv(k.mul(units, k.add(thread, 1)), team)
        with k.when(k.icmp("slt", k.size(begin), k.size(end))):
            k.call_pointer(kernel, [args, bases, *map(k.size, (begin, end, thread))])
        if parallel:
            with k.when(k.icmp("ne", k.load(i64, step, 24), 0)):
                k.external("GOMP_barrier", None, [])
    return k.module()


def run(isa: Isa) -> str:
    """``aio_run(job)``: walk the steps on the job's number of threads."""
    k = Builder("aio_run", Params(""), isa, JOB)
    job = k.arguments["job"]
    threads = k.load(i64, job, 24)
    alone = k.icmp("sle", threads, 1)
    with k.when(alone):
        k.call_pointer(k.address_of("aio_serial", JOB), [job])
    with k.when(k.icmp("sgt", threads, 1)):
        body = k.address_of("aio_body", JOB)
        team = k.cast(threads, i32)
        k.external("GOMP_parallel", None, [body, job, team, Value(i32, "0")])
    return k.module()
