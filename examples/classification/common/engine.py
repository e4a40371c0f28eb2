"""The model as a user accelerates it, and the engine's switch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from time import perf_counter
from typing import cast

import torch
from torch import Tensor, nn

Inputs = tuple[Tensor, ...]
Model = Callable[..., Tensor]
WARM_UP = 3  # the first passes prepare, tune and profile


def installed() -> bool:
    """Whether ``import torch`` brought the engine."""
    return "_aio_profiler_print" in dir(torch._C)


def switch(*, on: bool) -> None:
    """Turn the engine on or off for what is already compiled."""
    if installed():
        getattr(torch._C, "_aio_force_enable" if on else "_aio_force_disable")()


def accelerate(
    model: nn.Module, name: str, *, compiled: bool, traced: Inputs | None = None
) -> Model:
    """The model for torch-aio: through torch.compile, or as frozen TorchScript.

    TorchScript is had by scripting, or by tracing with the inputs ``traced``.
    """
    if not compiled:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TorchScript is going away: we know
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            script = torch.jit.trace(model, traced) if traced else torch.jit.script(model)
            return cast("Model", torch.jit.freeze(script))
    if installed():
        return torch.compile(model, backend="aio", options={"modelname": name})
    print("The engine is not installed: running without torch.compile\n")
    return model


def race(model: Model, *inputs: Tensor, runs: int, timeout: float) -> dict[bool, float]:
    """Mean seconds a pass with the engine on and off, in turns; warm-up runs are not counted.

    Stops after ``runs`` passes each way, or ``timeout`` seconds in all. Without the engine only
    "off" is there.
    """
    states = (True, False) if installed() else (False,)
    for on in states:
        switch(on=on)
        for _ in range(WARM_UP):
            model(*inputs)
    begin = perf_counter()
    total, done = dict.fromkeys(states, 0.0), 0
    while done < runs and (done == 0 or perf_counter() - begin < timeout):
        turn = min(10, runs - done)
        for on in states:
            switch(on=on)
            start = perf_counter()
            for _ in range(turn):
                model(*inputs)
            total[on] += perf_counter() - start
        done += turn
    switch(on=True)
    return {on: seconds / done for on, seconds in total.items()}


def report(seconds: dict[bool, float], size: int) -> None:
    """Print latency and throughput of passes over ``size`` samples."""
    for on, mean in seconds.items():
        print(f"\nEngine {'on' if on else 'off'}:" if True in seconds else "\nPyTorch alone:")
        print(f" Latency: {1000 * mean:.2f} ms\n Throughput: {size / mean:.2f} ips")
