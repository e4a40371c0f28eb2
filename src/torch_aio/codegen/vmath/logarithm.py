"""Logarithms; f32 vectors."""

from __future__ import annotations

from torch_aio.codegen.builder import Builder
from torch_aio.codegen.types import Value


def log1p(k: Builder, x: Value) -> Value:
    """log(1 + x)."""
    raise NotImplementedError
