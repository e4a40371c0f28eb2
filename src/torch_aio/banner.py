"""What the first compile of a process says and does once: the banner, and AIO_NUM_THREADS."""

from __future__ import annotations

import logging
import threading

import torch

from torch_aio import config, cpu, log
from torch_aio.version import VERSION

_lock = threading.Lock()
_applied: int | None = None


def at_first_compile() -> None:
    """Show the banner (level 2, once) and obey an AIO_NUM_THREADS set after `import torch`."""
    settings = config.read()
    apply_threads(settings)
    log.notice_once("banner", banner(settings), level=logging.INFO)


def banner(settings: config.Settings) -> str:
    """The settings and the machine, as Ampere's engine prints them."""
    lines = [f"torch-aio {VERSION}, PyTorch {torch.__version__}"]
    lines.append(f"AIO_PROCESS_MODE:  {settings.process_mode:d}")
    lines.append(f"AIO_NUM_THREADS:  {settings.num_threads or torch.get_num_threads()}")
    lines.append(f"CPU_BIND:  {settings.cpu_bind:d}")
    lines.append(f"MEM_BIND:  {settings.mem_bind:d}")
    lines.append(cpu.platform_info())
    return "\n".join(lines)


def apply_threads(settings: config.Settings) -> None:
    """Give AIO_NUM_THREADS to PyTorch, once per value: a later `set_num_threads` stands."""
    global _applied  # noqa: PLW0603 - one thread count per process
    with _lock:
        if settings.num_threads is not None and settings.num_threads != _applied:
            _applied = settings.num_threads
            torch.set_num_threads(settings.num_threads)
