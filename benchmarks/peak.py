"""What this machine can do at most: multiply-adds from registers, and memory bandwidth.

``python -m benchmarks.peak`` measures both with kernels of our own builder on one thread and on
two, through the engine's driver, so that a share of the peak compares like with like.
"""

from __future__ import annotations

import argparse
import ctypes
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import ClassVar

import torch

from torch_aio.codegen.builder import Builder, Params
from torch_aio.codegen.types import Type, f16, f32
from torch_aio.kernels.spec import KernelSpec, generate
from torch_aio.runtime.driver import JOB_SLOTS, STEP_SLOTS
from torch_aio.runtime.machine import Machine, machine

NAMES = {f16: "f16", f32: "f32"}
LINE = 64
ACROSS = 8  # vectors in flight of a memory kernel


@dataclass(frozen=True)
class MultiplyAdds(KernelSpec):
    """``rounds`` dependent multiply-adds on each of ``chains`` registers, per work unit."""

    element: Type
    chains: int
    params: ClassVar[Params] = Params("data:ptr rounds:int")

    @property
    def name(self) -> str:
        """The symbol."""
        return f"peak_fma_{NAMES[self.element]}_{self.chains}"

    def emit(self, k: Builder) -> None:
        """``acc = acc * a + b``; the accumulators are kept by storing them at the end."""
        vector = k.isa.vector(self.element)
        own = k.at(k.p.data, k.mul(k.begin, self.chains * LINE))
        a, b = (k.broadcast(vector, own, n * self.element.bytes) for n in range(2))
        start = [k.load(vector, own, n * LINE) for n in range(self.chains)]
        with k.loop(0, k.p.rounds, carry=start) as l:
            l.next = [k.fma(acc, a, b) for acc in l.v]
        for n, acc in enumerate(l.v):
            k.store(acc, own, n * LINE)


@dataclass(frozen=True)
class Stream(KernelSpec):
    """Reads a buffer and sums it, or copies it to another; a unit is ``bytes`` of it."""

    copies: bool
    params: ClassVar[Params] = Params("x:ptr y:ptr bytes:int")

    @property
    def name(self) -> str:
        """The symbol."""
        return "stream_copy" if self.copies else "stream_read"

    def emit(self, k: Builder) -> None:
        """Plain vector loads, added up or stored."""
        vector = k.isa.vector(f32)
        step = vector.lanes * vector.bytes
        zero = [k.const(vector, 0.0)] * (0 if self.copies else ACROSS)
        start, stop = (k.mul(n, k.p.bytes) for n in (k.begin, k.end))
        with k.loop(start, stop, ACROSS * step, carry=zero) as l:
            values = [k.load(vector, k.p.x, l.i, n * step) for n in range(ACROSS)]
            if self.copies:
                for n, value in enumerate(values):
                    k.store(value, k.p.y, l.i, n * step)
            else:
                l.next = [k.fadd(acc, v) for acc, v in zip(l.v, values, strict=True)]
        for n, acc in enumerate(l.v):
            k.store(acc, k.p.y, k.mul(k.thread, ACROSS * LINE), n * LINE)


def launcher(
    on: Machine, spec: KernelSpec, buffers: list[torch.Tensor], numbers: list[int], units: int
) -> Callable[[int], None]:
    """A function that runs the kernel once over ``units`` on so many threads."""
    address = on.jit.address(spec.name, lambda: generate(spec, on.isa))
    slots = [slot for n in range(len(buffers)) for slot in (n, 0)] + numbers
    block = (ctypes.c_int64 * len(slots))(*slots)
    bases = (ctypes.c_int64 * len(buffers))(*(buffer.data_ptr() for buffer in buffers))
    step = (ctypes.c_int64 * STEP_SLOTS)(address, ctypes.addressof(block), units, 0)
    job = (ctypes.c_int64 * JOB_SLOTS)(ctypes.addressof(bases), ctypes.addressof(step), 1, 1)
    memory = (block, bases, step, buffers)  # what the job points into lives as long as it

    def launch(threads: int) -> None:
        assert memory
        job[3] = threads
        on.run(ctypes.addressof(job))

    return launch


def fastest(launch: Callable[[int], None], threads: int, seconds: float) -> float:
    """The least seconds of a run, over about ``seconds`` of runs (at least two)."""
    best, end, runs = float("inf"), perf_counter() + seconds, 0
    while runs < 3 or perf_counter() < end:
        begin = perf_counter()
        launch(threads)
        best = min(best, perf_counter() - begin) if runs else best  # the first is a warm-up
        runs += 1
    return best


def flops(on: Machine, element: Type, threads: int, seconds: float, rounds: int) -> float:
    """Floating-point operations a second, a multiply-add counting as two."""
    chains = on.isa.registers * 3 // 4
    spec = MultiplyAdds(element, chains)
    data = torch.zeros(threads * chains * LINE // 4)
    launch = launcher(on, spec, [data], [rounds], threads)
    work = 2 * threads * rounds * chains * on.isa.lanes(element)
    return work / fastest(launch, threads, seconds)


def bandwidth(on: Machine, spec: Stream, threads: int, seconds: float, megabytes: int) -> float:
    """Bytes a second: read ones, or read and written ones of a copy."""
    size, unit = megabytes << 20, 1 << 16
    x, y = torch.ones(size // 4), torch.ones(size // 4)
    launch = launcher(on, spec, [x, y], [unit], size // unit)
    return (1 + spec.copies) * size / fastest(launch, threads, seconds)


def measure(on: Machine, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """All figures by name and number of threads: GFLOP/s and GB/s."""
    elements = [f32, f16] if on.isa.has_fp16_arithmetic else [f32]
    seconds, found = options.seconds, dict[str, dict[str, float]]()
    for threads in range(1, options.threads + 1):
        column = found.setdefault(str(threads), {})
        for element in elements:
            rate = flops(on, element, threads, seconds, options.rounds)
            column[f"{NAMES[element]} GFLOP/s"] = rate / 1e9
        for spec in (Stream(copies=False), Stream(copies=True)):
            rate = bandwidth(on, spec, threads, seconds, options.megabytes)
            column[f"{spec.name} GB/s"] = rate / 1e9
    return found


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description="Measure the machine's peaks.")
    parser.add_argument("--threads", type=int, default=2, help="up to so many threads (2)")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure (1.0)")
    parser.add_argument("--rounds", type=int, default=1 << 20, help="length of an FMA chain")
    parser.add_argument("--megabytes", type=int, default=256, help="size of a buffer (256)")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    on = machine()
    if on is None:
        raise SystemExit("the engine has no instruction set for this CPU")
    found = measure(on, options)
    print(f"{on.isa.name:<18}" + "".join(f"{f'{n} threads':>12}" for n in found))
    for name in found["1"]:
        print(f"{name:<18}" + "".join(f"{column[name]:12.1f}" for column in found.values()))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
