"""torch-aio: an inference acceleration engine for PyTorch on CPUs.

`import torch` is enough to use it. This package adds what PyTorch has no name for: its public names
are loaded when first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# PyTorch first: it loads `_autoload` at its end, before any module of ours is half imported.
import torch  # noqa: F401

from torch_aio._autoload import autoload
from torch_aio.version import VERSION

if TYPE_CHECKING:
    from torch_aio.capture.export import compile  # noqa: A004 - torch.compile's name
    from torch_aio.config import Options
    from torch_aio.engine.weights import refresh
    from torch_aio.errors import (
        AioError,
        CacheError,
        CaptureError,
        CompileError,
        ConfigError,
        InputError,
        KernelError,
        ReleasedError,
    )
    from torch_aio.tools.explain import explain
    from torch_aio.tools.verify import verify

__version__ = VERSION

_HOMES = {
    "compile": "capture.export",
    "explain": "tools.explain",
    "verify": "tools.verify",
    "refresh": "engine.weights",
    "Options": "config",
    "AioError": "errors",
    "CacheError": "errors",
    "CaptureError": "errors",
    "CompileError": "errors",
    "ConfigError": "errors",
    "InputError": "errors",
    "KernelError": "errors",
    "ReleasedError": "errors",
}

__all__ = [
    "AioError",
    "CacheError",
    "CaptureError",
    "CompileError",
    "ConfigError",
    "InputError",
    "KernelError",
    "Options",
    "ReleasedError",
    "__version__",
    "compile",
    "explain",
    "refresh",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


autoload()  # for programs that start with TORCH_DEVICE_BACKEND_AUTOLOAD=0
