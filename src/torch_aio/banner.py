"""What the first compile of a process says and does once: the banner, and AIO_NUM_THREADS."""

from __future__ import annotations

import logging

import torch

from torch_aio import config, cpu, log, num_threads
from torch_aio.version import VERSION


def at_first_compile() -> None:
    """Show the banner (level 2, once) and obey an AIO_NUM_THREADS set after `import torch`."""
    settings = config.read()
    num_threads.apply(settings)
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
