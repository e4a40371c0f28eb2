"""The process-wide switch between the engine and plain PyTorch.

``torch._C._aio_force_disable()`` turns every compiled callable of every front door into its plain
PyTorch form until ``_aio_force_enable()``. Read at call time as ``switch.on``: one attribute load.
"""

from __future__ import annotations

on = True


def enable() -> None:
    """Let compiled callables run on the engine (the state a process starts in)."""
    global on  # noqa: PLW0603 - a module attribute is the cheapest flag to read
    on = True


def disable() -> None:
    """Let compiled callables run their plain PyTorch form."""
    global on  # noqa: PLW0603 - see enable
    on = False
