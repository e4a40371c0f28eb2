"""What surrounds a compile: a clock of its stages, and no garbage collection in between."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, TypeVar

from torch._C._dynamo.eval_frame import set_eval_frame

Result = TypeVar("Result")
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


def untraced(function: Callable[..., Result], *args: Any) -> Result:
    """Call, and let Dynamo compile no frame inside.

    It does not trace into a frozen module that a compiled function calls, but it would compile the
    engine's frames one by one.
    """
    before = set_eval_frame(None)
    try:
        return function(*args)
    finally:
        set_eval_frame(before)
