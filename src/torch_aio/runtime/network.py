"""A network: steps with their constants on this machine; a run is one native call."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from torch_aio.runtime.arena import ArenaPool
from torch_aio.runtime.driver import JOB_SLOTS, STEP_SLOTS
from torch_aio.runtime.machine import Machine
from torch_aio.runtime.profile import Recorder, Take
from torch_aio.runtime.table import ARENA, ERRORS, FIRST, SCRATCH, Bound

try:  # 0.7 us less than torch.empty_strided
    from torch._C._dynamo.guards import (  # type: ignore[attr-defined]
        _empty_strided_cpu as empty_strided,
    )
except ImportError:

    def empty_strided(
        shape: Sequence[int], stride: Sequence[int], dtype: torch.dtype
    ) -> torch.Tensor:
        """Fresh memory."""
        return torch.empty_strided(shape, stride, dtype=dtype)


MOST_BOUND = 64
"""Bound tables kept a network: sizes beyond these are bound again when they return."""

OUT_OF_RANGE = 1
"""The error word of a kernel that met an index outside its table."""

THREADS = 3
"""The job's slot for the number of threads."""
ONE_THREAD = 256 << 10
"""Bytes that one thread passes over in the time (some 10 us) that starting a team takes."""


class Frame:
    """The mutable memory of one call: ``bases[]``, the job record and the error word.

    ``threads`` is the size of the team that used it last.
    """

    __slots__ = ("bases", "errors", "job", "job_address", "threads")

    def __init__(self, loaded: Loaded, bases: list[int]) -> None:
        self.errors = ctypes.c_int64(0)
        bases[ERRORS] = ctypes.addressof(self.errors)
        self.bases = (ctypes.c_int64 * len(bases))(*bases)
        self.job = (ctypes.c_int64 * JOB_SLOTS)(
            ctypes.addressof(self.bases), loaded.steps.ctypes.data, len(loaded.bound.units), 1
        )
        self.job_address = ctypes.c_void_p(ctypes.addressof(self.job))
        self.threads = 0


class Loaded:
    """A bound plan with kernel addresses: the immutable step table of one size."""

    def __init__(self, bound: Bound, kernels: Sequence[int]) -> None:
        self.bound = bound
        steps = np.zeros((max(len(kernels), 1), STEP_SLOTS), dtype=np.int64)
        start = bound.blocks.ctypes.data
        for i, kernel in enumerate(kernels):
            steps[i] = kernel, start + 8 * bound.starts[i], bound.units[i], bound.barriers[i]
        self.steps = steps
        self.outputs = tuple((shape, stride, dtype) for shape, stride, dtype in bound.outputs)
        self.arena, self.scratch = bound.arena_bytes, bound.scratch_bytes
        self.widest = max([1, *bound.units]) if bound.touched_bytes > ONE_THREAD else 1


class Packed:
    """A network's constants (None: a table), and the frames of calls that use them.

    Immutable for the caller; another weight state has another one, and calls in flight keep theirs.
    """

    def __init__(self, constants: Sequence[torch.Tensor | None]) -> None:
        self.constants = tuple(constants)
        self.ready: dict[tuple[int, ...], tuple[Loaded, list[Frame]]] = {}


class Network:
    """Callable on the tensors of its inputs; returns fresh tensors.

    ``bind`` gives the table for symbol values, ``kernels`` are the addresses of its steps,
    ``first`` is the position of the constants in ``bases[]``. ``take`` gets the nanoseconds of each
    step after each run (None: no clock is read).
    """

    def __init__(
        self,
        bind: Callable[[Mapping[str, int]], Bound],
        kernels: Sequence[int],
        first: int,
        machine: Machine,
        take: Take | None = None,
    ) -> None:
        self._bind, self._kernels, self._first = bind, kernels, first
        self._team = machine.team
        self._pool = ArenaPool()
        self._loaded: dict[tuple[int, ...], Loaded] = {}
        self._fill = struct.Struct(f"{first - FIRST}q").pack_into
        self._run: Callable[[Any], None] = machine.run
        if take is not None:
            self._run = Recorder(machine.timed_run, len(kernels), take)

    def __call__(
        self, inputs: Sequence[torch.Tensor], env: Mapping[str, int], packed: Packed
    ) -> list[torch.Tensor]:
        """Run on ``inputs`` where the symbols have the values ``env``.

        Raises IndexError where an index lay outside its table.
        """
        key = tuple(env.values()) if env else ()
        found = packed.ready.get(key)
        loaded, frames = found if found is not None else self._load(key, env, packed)
        try:
            frame = frames.pop()
        except IndexError:
            frame = self._frame(loaded, packed)
        team = min(self._team.size(), loaded.widest)
        if frame.threads != team:
            self._team.enter(team)
            frame.job[THREADS] = frame.threads = team
        arena = self._pool.take(loaded.arena + team * loaded.scratch)
        bases = frame.bases
        bases[ARENA], bases[SCRATCH] = arena.address, arena.address + loaded.arena
        outputs = [empty_strided(*output) for output in loaded.outputs]
        pointers = [tensor.data_ptr() for tensor in inputs]
        pointers += [tensor.data_ptr() for tensor in outputs]
        self._fill(bases, FIRST * 8, *pointers)
        self._run(frame.job_address)
        self._pool.give(arena)
        if frame.errors.value:
            frame.errors.value = 0
            frames.append(frame)
            raise IndexError("index out of range in self")
        frames.append(frame)
        return outputs

    def _load(
        self, key: tuple[int, ...], env: Mapping[str, int], packed: Packed
    ) -> tuple[Loaded, list[Frame]]:
        loaded = self._loaded.get(key)
        if loaded is None:
            loaded = Loaded(self._bind(env), self._kernels)
            self._loaded = {**_newest(self._loaded), key: loaded}
        found: tuple[Loaded, list[Frame]] = loaded, []
        packed.ready = {**_newest(packed.ready), key: found}
        return found

    def _frame(self, loaded: Loaded, packed: Packed) -> Frame:
        tables = loaded.bound.tables
        pointers: list[Any] = [
            tables[i].ctypes.data if i in tables else tensor.data_ptr()  # type: ignore[union-attr]
            for i, tensor in enumerate(packed.constants)
        ]
        return Frame(loaded, [0] * self._first + pointers)


def _newest(known: dict[Any, Any]) -> dict[Any, Any]:
    """What is kept beside one more: the newer half of a full table."""
    return known if len(known) < MOST_BOUND else dict(list(known.items())[MOST_BOUND // 2 :])
