"""All that `import torch` runs of us: names on torch, the TorchScript door, AIO_NUM_THREADS.

Neither llvmlite nor torch._dynamo is imported, 10 ms are the limit, and nothing here may raise:
an exception would make `import torch` fail in programs that never heard of us.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable

from torch_aio import config, log, num_threads
from torch_aio.errors import ConfigError

# Modules with an `install()`. The first puts Ampere's names on torch: they stay, with their eager
# meaning, where the engine is off. The others hook the engine in.
NAMES = "torch_aio.capture.surface"
HOOKS = ("torch_aio.capture.torchscript", "torch_aio.capture.eager")

_done = False


def autoload() -> None:
    """Hook the engine into PyTorch, once; the entry point `torch.backends`."""
    global _done  # noqa: PLW0603 - PyTorch is hooked once per process
    if _done:
        return
    _done = True
    _guarded(_names)
    _guarded(_engine)


def _names() -> None:
    _install(NAMES)


def _engine() -> None:
    settings = config.read()
    if not settings.process_mode:
        return
    num_threads.apply(settings)
    for module in HOOKS:
        _install(module)


def _install(module: str) -> None:
    importlib.import_module(module).install()


def _guarded(step: Callable[[], None]) -> None:
    """Run a step; what it raises becomes a message. A wrong setting is raised at first compile."""
    try:
        step()
    except ConfigError as error:
        log.notice_once(f"config {error}", str(error), level=logging.ERROR)
    except Exception as error:
        log.error("the engine is not hooked into PyTorch: %s: %s", type(error).__name__, error)
