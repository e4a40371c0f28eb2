"""A network: steps with their constants on this machine; a run is one native call."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from torch_aio.runtime.arena import ArenaPool
from torch_aio.runtime.driver import JOB_SLOTS, STEP_SLOTS
from torch_aio.runtime.machine import Machine
from torch_aio.runtime.table import ARENA, ERRORS, FIRST, SCRATCH, Bound

MOST_BOUND = 64
"""Bound tables kept a network: sizes beyond these are bound again when they return."""

OUT_OF_RANGE = 1
"""The error word of a kernel that met an index outside its table."""


class Frame:
    """The mutable memory of one call: ``bases[]`` and the job record."""

    __slots__ = ("bases", "constants", "errors", "job", "job_address", "loaded")

    def __init__(self, loaded: Loaded, bases: list[int], constants: Sequence[Any]) -> None:
        self.loaded, self.constants = loaded, constants
        self.errors = ctypes.c_int64(0)
        bases[ERRORS] = ctypes.addressof(self.errors)
        self.bases = (ctypes.c_int64 * len(bases))(*bases)
        self.job = (ctypes.c_int64 * JOB_SLOTS)(
            ctypes.addressof(self.bases), loaded.steps.ctypes.data, len(loaded.bound.units), 1
        )
        self.job_address = ctypes.addressof(self.job)


class Loaded:
    """A bound plan with kernel addresses: the immutable step table, and frames free for calls."""

    def __init__(self, bound: Bound, kernels: Sequence[int]) -> None:
        self.bound = bound
        self.frames: list[Frame] = []
        steps = np.zeros((max(len(kernels), 1), STEP_SLOTS), dtype=np.int64)
        start = bound.blocks.ctypes.data
        for i, kernel in enumerate(kernels):
            steps[i] = kernel, start + 8 * bound.starts[i], bound.units[i], bound.barriers[i]
        self.steps = steps


class Network:
    """Callable on the tensors of its inputs; returns fresh tensors.

    ``bind`` gives the table for symbol values, ``kernels`` are the addresses of its steps, ``first``
    is the position of the constants in ``bases[]``. ``constants`` (None: a table) are replaced as a
    whole by ``load_constants``: calls in flight keep the old ones.
    """

    def __init__(
        self,
        bind: Callable[[Mapping[str, int]], Bound],
        kernels: Sequence[int],
        first: int,
        machine: Machine,
        constants: Sequence[torch.Tensor | None],
    ) -> None:
        self._bind, self._kernels, self._first, self._machine = bind, kernels, first, machine
        self._pool = ArenaPool()
        self._loaded: dict[tuple[int, ...], Loaded] = {}
        self.constants: Sequence[torch.Tensor | None] = constants

    def load_constants(self, constants: Sequence[torch.Tensor | None]) -> None:
        """Use these packed constants from the next call on."""
        self.constants = constants
        self._loaded = {}

    def __call__(
        self, inputs: Sequence[torch.Tensor], env: Mapping[str, int] | None = None
    ) -> list[torch.Tensor]:
        """Run on ``inputs`` where the symbols have the values ``env``.

        Raises IndexError where an index lay outside its table.
        """
        key = tuple(env.values()) if env else ()
        loaded = self._loaded.get(key)
        if loaded is None:
            loaded = self._load(key, env or {})
        try:
            frame = loaded.frames.pop()
        except IndexError:
            frame = self._frame(loaded)
        bound, bases = loaded.bound, frame.bases
        team = self._machine.team.size()
        arena = self._pool.take(bound.arena_bytes + team * bound.scratch_bytes)
        bases[ARENA], bases[SCRATCH] = arena.address, arena.address + bound.arena_bytes
        position = FIRST
        for tensor in inputs:
            bases[position] = tensor.data_ptr()
            position += 1
        outputs = []
        for shape, stride, dtype in bound.outputs:
            output = torch.empty_strided(shape, stride, dtype=dtype)
            bases[position] = output.data_ptr()
            position += 1
            outputs.append(output)
        frame.job[3] = team
        self._machine.run(frame.job_address)
        failed, frame.errors.value = frame.errors.value, 0
        self._pool.give(arena)
        loaded.frames.append(frame)
        if failed:
            raise IndexError("index out of range in self")
        return outputs

    def _load(self, key: tuple[int, ...], env: Mapping[str, int]) -> Loaded:
        if len(self._loaded) >= MOST_BOUND:
            self._loaded = dict(list(self._loaded.items())[MOST_BOUND // 2 :])
        loaded = Loaded(self._bind(env), self._kernels)
        self._loaded[key] = loaded
        return loaded

    def _frame(self, loaded: Loaded) -> Frame:
        """A frame that holds on to today's constants."""
        constants, tables = self.constants, loaded.bound.tables
        pointers: list[Any] = [
            tables[i].ctypes.data if i in tables else tensor.data_ptr()  # type: ignore[union-attr]
            for i, tensor in enumerate(constants)
        ]
        return Frame(loaded, [0] * self._first + pointers, constants)
