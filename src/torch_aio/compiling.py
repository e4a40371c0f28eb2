"""What surrounds a compile: a clock of its stages, and no garbage collection in between."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

_thread = threading.local()


@contextmanager
def clock() -> Iterator[dict[str, float]]:
    """Seconds of the stages that this thread enters inside, each without the stages in it."""
    before = getattr(_thread, "spent", None)
    spent: dict[str, float] = {}
    _thread.spent = spent
    try:
        yield spent
    finally:
        _thread.spent = before


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Count the time inside to stage ``name`` of the clock that runs, if one does."""
    spent: dict[str, float] | None = getattr(_thread, "spent", None)
    if spent is None:
        yield
        return
    before, begin = sum(spent.values()), perf_counter()
    try:
        yield
    finally:
        inside = sum(spent.values()) - before
        spent[name] = spent.get(name, 0.0) + perf_counter() - begin - inside


@contextmanager
def uncollected() -> Iterator[None]:
    """Without garbage collection: what a compile makes lives on.

    A full collection in its middle takes 0.2 s once transformers is imported, half of BERT-base's
    warm start.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
