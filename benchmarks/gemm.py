"""Matrix products as models call them, as a share of the FMA peak measured in the same run.

``python -m benchmarks.gemm``: linear layers with bias and GELU (packed weights, epilogue and call
included) and products of two activations (the right one packed at run time), interleaved with the
peak and with eager; shapes are M x N x K. Then few rows by weights that no cache holds, as a share
of the memory's bandwidth: what decoding is bound by.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import perf_counter

import torch
from torch import Tensor, nn

import torch_aio
from benchmarks.peak import Stream, bandwidth, flops
from torch_aio.codegen.types import f32
from torch_aio.runtime.machine import machine

LINEAR = ((128, 768, 768), (128, 3072, 768), (128, 2304, 768), (128, 768, 3072), (1024,) * 3)
PEAK_ROUNDS = 20_000  # some milliseconds of multiply-adds
PRODUCT = ((1024,) * 3,)
FEW = (1, 2, 4, 8, 16)
SIDE, LAYERS = 4096, 4  # 268 MB of weights a call


class Product(nn.Module):
    """The product of two activations."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """``a @ b``."""
        return a @ b


def case(shape: tuple[int, ...], *, is_linear: bool) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A module and its inputs for one shape."""
    m, n, k = shape
    if is_linear:
        return nn.Sequential(nn.Linear(k, n), nn.GELU()).eval(), (torch.randn(m, k),)
    return Product(), (torch.randn(m, k), torch.randn(k, n))


def seconds(call: Callable[[], object], budget: float) -> float:
    """The fastest of the calls made in ``budget`` seconds."""
    best, stop = float("inf"), perf_counter() + budget
    while perf_counter() < stop:
        begin = perf_counter()
        call()
        best = min(best, perf_counter() - begin)
    return best


def row(shape: tuple[int, ...], threads: int, rounds: int, *, is_linear: bool) -> str:
    """One line of the table: GFLOP/s of ours and eager, and our share of the peak."""
    host = machine()
    assert host is not None, "this machine has no instruction set of ours"
    torch.set_num_threads(threads)
    module, inputs = case(shape, is_linear=is_linear)
    ours = torch_aio.compile(module, inputs)
    peak = eager = fast = 0.0
    work = 2 * shape[0] * shape[1] * shape[2]
    for _ in range(rounds):
        peak = max(peak, flops(host, f32, threads, 0.05, PEAK_ROUNDS))
        fast = max(fast, work / seconds(lambda: ours(*inputs), 0.2))
        eager = max(eager, work / seconds(lambda: module(*inputs), 0.2))
    kind = "linear+gelu" if is_linear else "matmul"
    size = "x".join(map(str, shape))
    share = fast / peak
    return (
        f"{kind:12} {size:16} {threads:3} {fast / 1e9:9.0f} {eager / 1e9:9.0f} "
        f"{peak / 1e9:9.0f} {share:7.0%}"
    )


def few_rows(m: int, threads: int, rounds: int) -> str:
    """One line of the second table: GB/s of weights of ours and eager, our share of a read's."""
    host = machine()
    assert host is not None, "this machine has no instruction set of ours"
    module = nn.Sequential(*(nn.Linear(SIDE, SIDE, bias=False) for _ in range(LAYERS))).eval()
    x = torch.randn(m, SIDE)
    ours = torch_aio.compile(module, (x,))
    size = LAYERS * SIDE * SIDE * 4
    peak = eager = fast = 0.0
    for _ in range(rounds):
        peak = max(peak, bandwidth(host, Stream(copies=False), threads, 0.1, size >> 20))
        fast = max(fast, size / seconds(lambda: ours(x), 0.2))
        eager = max(eager, size / seconds(lambda: module(x), 0.2))
    shape = f"{m}x{SIDE}x{SIDE}"
    share = fast / peak
    return (
        f"{'linear':12} {shape:16} {threads:3} {fast / 1e9:9.1f} {eager / 1e9:9.1f} "
        f"{peak / 1e9:9.1f} {share:7.0%}"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    print("kind         M x N x K        threads  GFLOP/s     eager      peak   share")
    with torch.no_grad():
        for shape in LINEAR:
            print(row(shape, options.threads, options.rounds, is_linear=True))
        for shape in PRODUCT:
            print(row(shape, options.threads, options.rounds, is_linear=False))
        print(row((128,) * 3, 1, options.rounds, is_linear=False))
        print("kind         M x N x K        threads     GB/s     eager      read   share")
        for m in FEW:
            print(few_rows(m, options.threads, options.rounds))


if __name__ == "__main__":
    main()
