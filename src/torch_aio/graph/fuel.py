"""How many rewrites may fire: bisection over it finds the one that spoils an answer (AIO_FUEL)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Fuel:
    """How many more rewrites may fire; bisection looks for the first that spoils an answer."""

    left: int


_fuel: ContextVar[Fuel | None] = ContextVar("fuel", default=None)


@contextmanager
def limited(amount: int | None) -> Iterator[None]:
    """Let at most ``amount`` rewrites fire inside (None: any number)."""
    token = _fuel.set(None if amount is None else Fuel(amount))
    try:
        yield
    finally:
        _fuel.reset(token)


def spend() -> bool:
    """Whether one more rewrite may fire; counts it."""
    fuel = _fuel.get()
    if fuel is None:
        return True
    fuel.left -= 1
    return fuel.left >= 0
