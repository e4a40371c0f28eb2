"""A bound plan: numbers only, what the driver and a call need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

ARENA, SCRATCH, ERRORS, FIRST = 0, 1, 2, 3
"""Positions in ``bases[]``: arena, scratch, error word; then inputs, outputs and constants."""


@dataclass
class Bound:
    """A plan with numbers: immutable, shared by calls.

    ``blocks`` holds the argument blocks of all steps, ``starts`` where each begins (in i64 slots),
    ``units`` its work units, ``barriers`` whether a barrier follows;
    ``touched_bytes`` is what all steps read and write. ``outputs`` are shapes,
    strides and dtypes. ``tables`` are constants that depend on sizes, by constant number.
    """

    blocks: np.ndarray[Any, np.dtype[np.int64]]
    starts: list[int]
    units: list[int]
    barriers: list[bool]
    arena_bytes: int
    scratch_bytes: int
    touched_bytes: int
    outputs: list[tuple[tuple[int, ...], tuple[int, ...], torch.dtype]]
    tables: dict[int, np.ndarray[Any, Any]] = field(default_factory=dict)
