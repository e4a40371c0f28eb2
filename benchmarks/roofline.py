"""What each step of a plan reaches of what the machine could.

``python -m benchmarks.roofline resnet50 --door aio-freeze``

Peaks are measured in the same process: multiply-adds from registers; bytes read from memory;
bytes copied within the caches. A step could take

    max(operations / FMA peak, weights / memory bandwidth + other operands / cache bandwidth)

(weights that fit the last cache together are read from there). ``share`` is that time by the
measured one, ``loss`` their difference, and the largest loss comes first. A step's time is the
least of all calls, by the profiling driver, which puts a barrier behind each step. A node of
several steps has its operations, those of the direct algorithm, in the longest: Winograd passes the
peak. Operands count whole, so a step that touches a few rows of a table reaches more than it could.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks import engines, models, peak
from torch_aio import cpu
from torch_aio.codegen.types import f32
from torch_aio.engine import compiled
from torch_aio.engine.compiled import CompiledGraph
from torch_aio.engine.variant import Variant
from torch_aio.ir.symbols import evaluate
from torch_aio.plan.value import Buffer, Step, Value
from torch_aio.runtime import profile
from torch_aio.runtime.machine import machine
from torch_aio.tools.explain import flops

Key = tuple[str, str]
"""A kernel and the node it computes."""
DOORS = ("aio-freeze", "aio-compile", "aio-export")
WARM_UP = 5  # calls before those that count: packing and tuning
CACHED, MEMORY = 4, 256  # MiB of a buffer in the caches, and of one that is not


@dataclass(frozen=True)
class Roofline:
    """Peaks of the machine: operations a second, bytes a second."""

    flops: float
    memory: float
    cache: float

    @classmethod
    def measured(cls, threads: int) -> Roofline:
        """Peaks of this machine with so many threads."""
        on = machine()
        if on is None:
            raise SystemExit("the engine has no instruction set for this CPU")
        read, copy = peak.Stream(copies=False), peak.Stream(copies=True)
        return cls(
            peak.flops(on, f32, threads, 0.3, 1 << 16),
            peak.bandwidth(on, read, threads, 0.5, MEMORY),
            peak.bandwidth(on, copy, threads, 0.3, CACHED),
        )

    def seconds(self, work: Work, *, weights_fit: bool) -> float:
        """What so much work takes at least."""
        weights = work.weights / (self.cache if weights_fit else self.memory)
        return max(work.flops / self.flops, weights + work.others / self.cache)


@dataclass
class Work:
    """Operations, bytes of constants and bytes of other operands of a step."""

    flops: int = 0
    weights: int = 0
    others: int = 0

    @property
    def bytes(self) -> int:
        """All bytes."""
        return self.weights + self.others


def works(graphs: Iterable[CompiledGraph], times: Mapping[Key, float]) -> dict[Key, Work]:
    """The work of every timed step."""
    found = {key: Work() for key in times}
    for variant in (graph.variants[-1] for graph in graphs if graph.variants):
        env = variant.guards.hints
        for step in (s for item in variant.networks.values() for s in item.plan.steps):
            _add_bytes(found.setdefault((step.spec.name, step.label), Work()), step, env)
        _add_flops(found, variant, times)
    return found


def _add_bytes(work: Work, step: Step, env: Mapping[str, int]) -> None:
    for buffer in dict.fromkeys((*step.reads, *step.writes)):
        size = evaluate(buffer.bytes, env)
        if buffer.kind == "constant":
            work.weights += size
        elif buffer.kind != "error":
            work.others += min(size, _spanned(step, buffer, env))


def _spanned(step: Step, buffer: Buffer, env: Mapping[str, int]) -> int:
    """Bytes of the values of a step in this buffer: a concatenation writes a part of it."""
    values = [v for v in step.arguments.values() if isinstance(v, Value) and v.buffer is buffer]
    return sum(v.itemsize * evaluate(v.spec.numel, env) for v in values)


def _add_flops(found: dict[Key, Work], variant: Variant, times: Mapping[Key, float]) -> None:
    longest: dict[str, Key] = {}
    for key in sorted(times, key=lambda key: times[key]):
        longest[key[1]] = key
    for node in variant.gm.graph.nodes:
        key = longest.get(node.meta.get("fused", node.name))
        if key is not None and "spec" in node.meta:
            found[key].flops += flops(node, variant.guards.hints)


def timed(run: Callable[..., Any], inputs: Sequence[Any], calls: int) -> dict[Key, float]:
    """The least seconds of every step over so many calls."""
    best: dict[Key, float] = {}
    for _ in range(calls):
        profile.reset()
        run(*inputs)
        for key, (_, nanoseconds) in profile.totals().items():
            best[key] = min(best.get(key, float("inf")), nanoseconds / 1e9)
    return best


def table(times: Mapping[Key, float], work: Mapping[Key, Work], roof: Roofline, cache: int) -> str:
    """Steps by their loss, then the totals; ``cache``: bytes that weights may have and fit."""
    fit = sum(item.weights for item in work.values()) <= cache
    least = {key: roof.seconds(work[key], weights_fit=fit) for key in times}
    lines = [f"{'loss us':>8} {'us':>8} {'share':>6} {'GFLOP/s':>8} {'GB/s':>6}  kernel, node"]
    lines += [
        _line(times[key], least[key], work[key], ", ".join(key))
        for key in sorted(times, key=lambda key: least[key] - times[key])
    ]
    fields = ("flops", "weights", "others")
    total = Work(*(sum(getattr(item, name) for item in work.values()) for name in fields))
    lines.append(_line(sum(times.values()), sum(least.values()), total, "total"))
    return "\n".join(lines)


def _line(time: float, least: float, work: Work, name: str) -> str:
    return (
        f"{1e6 * (time - least):8.1f} {1e6 * time:8.1f} {least / time:6.0%}"
        f" {work.flops / time / 1e9:8.1f} {work.bytes / time / 1e9:6.1f}  {name}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Steps of a plan against the machine's roofline.")
    add = parser.add_argument
    add("model", help="see benchmarks/models.py")
    add("--door", choices=DOORS, default=DOORS[0])
    add("--threads", type=int, default=2)
    add("--batch", type=int, default=1)
    add("--calls", type=int, default=100, help="the fastest of so many counts (100)")
    options = parser.parse_args()
    os.environ.update(AIO_PROFILER="1", AIO_DEBUG_MODE="1")
    torch.set_num_threads(options.threads)
    model = models.build(options.model, batch=options.batch)
    with torch.inference_mode(), compiled.observed() as graphs:
        run = engines.find(options.door).compile(model, options.threads)
        for _ in range(WARM_UP):
            run(*model.inputs)
        times = timed(run, model.inputs, options.calls)
    roof = Roofline.measured(options.threads)
    print(
        f"{options.model}: {options.threads} threads; peak {roof.flops / 1e9:.0f} GFLOP/s, "
        f"memory {roof.memory / 1e9:.0f} GB/s, caches {roof.cache / 1e9:.0f} GB/s"
    )
    last_cache = max((cache.size for cache in cpu.caches()), default=0)
    print(table(times, works(graphs, times), roof, last_cache))


if __name__ == "__main__":
    main()
