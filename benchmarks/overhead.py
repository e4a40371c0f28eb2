"""What a call costs beside its kernels, in microseconds: ``python -m benchmarks.overhead``.

``native``: the driver alone, called again and again on the job of one call. ``own door``: the same
layer through ``torch_aio.compile``. Then ``torch.compile`` with the backends "aio" and "eager" on
chains of small layers: what is ours on top of Dynamo grows with the number of parameters, whose
identity and version are looked at in every call. The fastest of interleaved rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from time import perf_counter

import torch
from torch import Tensor, nn

import torch_aio
from torch_aio.engine import compiled

WIDTH = 16
LAYERS = (1, 10, 50)
CALLS = 200  # of a turn


def fastest(calls: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Microseconds of each call, the least of interleaved turns."""
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for n, call in enumerate(calls):
            begin = perf_counter()
            for _ in range(CALLS):
                call()
            best[n] = min(best[n], (perf_counter() - begin) / CALLS * 1e6)
    return best


def native(run: Callable[..., object], x: Tensor) -> Callable[[], object]:
    """The driver on the job of one call of a compiled graph of one network."""
    with compiled.observed() as graphs:
        run(x)
    ((item,),) = (v.networks.values() for graph in graphs for v in graph.variants)
    drive, jobs = item.network._run, []

    def noted(job: object) -> None:
        jobs.append(job)
        drive(job)

    item.network._run = noted
    result = run(x)
    item.network._run = drive
    memory = (run, x, result)  # what the job points into

    def again() -> None:
        assert memory
        drive(jobs[0])

    return again


def own_door(rounds: int) -> None:
    """One layer: the driver, and the whole call."""
    layer, x = nn.Linear(WIDTH, WIDTH).eval(), torch.randn(1, WIDTH)
    run, other = (torch_aio.compile(layer, (x,)) for _ in range(2))  # a call would change the job
    drive, call = fastest([native(other, x), lambda: run(x)], rounds)
    print(f"native {drive:.2f}  own door {call:.2f}  difference {call - drive:.2f}")


def compiled_doors(layers: int, rounds: int) -> None:
    """A chain of layers: torch.compile with our backend and with "eager"."""
    net = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(layers))).eval()
    x = torch.randn(1, WIDTH)
    torch.compiler.reset()
    ours, eager = (torch.compile(net, backend=name) for name in ("aio", "eager"))
    times = fastest([lambda: ours(x), lambda: eager(x)], rounds)
    print(
        f"{2 * layers:4} parameters: aio {times[0]:.1f}  eager {times[1]:.1f}  "
        f"difference {times[0] - times[1]:.1f}"
    )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Microseconds a call costs beside its kernels.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        own_door(options.rounds)
        for layers in LAYERS:
            compiled_doors(layers, options.rounds)


if __name__ == "__main__":
    main()
