"""The compiled graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch_aio.engine.captured import Captured


def compile_graph(captured: Captured, options: Any) -> Callable[..., tuple[Any, ...]]:
    """Compile a captured graph into a callable of the same positional arguments."""

    def run(*args: Any) -> tuple[Any, ...]:
        return tuple(captured.module(*(args[i] for i in captured.arguments)))

    return run
