"""The names that Ampere's programs use on ``torch`` and ``torch._C``.

Programs find the engine by ``'_aio_profiler_print' in dir(torch._C)`` and time one module with the
engine and without by ``_aio_force_enable`` and ``_aio_force_disable``, in one process.
"""

from __future__ import annotations

import importlib.util

import torch

from torch_aio import switch
from torch_aio.capture import functional


def install() -> None:
    """Put the names on ``torch``; they stay there with the engine off."""
    torch.nn.functional.layer_norm = functional.layer_norm  # type: ignore[assignment]
    torch.aio_rope = functional.aio_rope  # type: ignore[attr-defined]
    torch._C._aio_profiler_print = profiler_print  # type: ignore[attr-defined]
    torch._C._aio_force_enable = switch.enable  # type: ignore[attr-defined]
    torch._C._aio_force_disable = switch.disable  # type: ignore[attr-defined]


def profiler_print() -> None:
    """Print the profile per operator that ``AIO_PROFILER=1`` collected."""
    print(_report())


def _report() -> str:
    name = "torch_aio.runtime.profile"
    if importlib.util.find_spec(name) is None:
        return "torch_aio: no profile: this version collects none"
    report: str = importlib.import_module(name).report()
    return report
