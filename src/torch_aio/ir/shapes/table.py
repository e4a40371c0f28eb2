"""Rows of the shape table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ShapeFunction = Callable[..., Any]
Row = tuple[str, ShapeFunction]


def rows(*pairs: Row) -> tuple[Row, ...]:
    """Rows of (name, function): ``"add"`` for every overload, ``"pow.Scalar"`` for one.

    Names without a namespace belong to aten.
    """
    return tuple((name if "::" in name else f"aten::{name}", function) for name, function in pairs)
