"""A plan: the steps of one network with every size an expression, and its binding to numbers."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from torch_aio.ir.symbols import Guards, Int, bucket_of, evaluate
from torch_aio.plan.choice import Choice
from torch_aio.plan.lowering import Constant, Table
from torch_aio.plan.memory import lifetimes, phases, place
from torch_aio.plan.value import Argument, Buffer, Scratch, Step, Value
from torch_aio.runtime.table import ARENA, ERRORS, FIRST, SCRATCH, Bound


@dataclass(frozen=True)
class TensorPlan:
    """A tensor that crosses the border of a network: symbols allowed in shape and strides."""

    shape: tuple[Int, ...]
    stride: tuple[Int, ...]
    dtype: torch.dtype


Placement = tuple[dict[Buffer, int], int]
"""Offsets of arena buffers, and the size of the arena."""


@dataclass
class Plan:
    """The steps of one network.

    ``guards`` are the answers about sizes that it relies on, ``choices`` those of the lowering.
    """

    steps: list[Step]
    inputs: int
    outputs: list[TensorPlan]
    constants: list[Constant | Table]
    guards: Guards
    choices: list[Choice] = field(default_factory=list)
    _placements: dict[tuple[int, ...], Placement] = field(default_factory=dict)

    @cached_property
    def spans(self) -> dict[Buffer, tuple[int, int]]:
        """Lifetimes of arena buffers, in phases; numbers the phases of the steps."""
        phases(self.steps)
        return lifetimes(self.steps)

    def bind(self, env: Mapping[str, int]) -> Bound:
        """Numbers for everything, for the symbol values ``env``.

        Memory is planned for the power-of-two bucket above each symbol, so that growing sizes meet
        the same arena again.
        """
        offsets, arena = self._placement(env)
        blocks: list[int] = []
        starts: list[int] = []
        scratch = 0
        for step in self.steps:
            starts.append(len(blocks))
            for argument in step.flat():
                blocks += self._slots(argument, offsets, env)
                if isinstance(argument, Scratch):
                    scratch = max(scratch, blocks[-1])
        barriers = [a.phase != b.phase for a, b in zip(self.steps, self.steps[1:], strict=False)]
        return Bound(
            np.array(blocks or [0], dtype=np.int64),
            starts,
            [evaluate(step.units, env) for step in self.steps],
            [*barriers, False],
            arena,
            scratch,
            self._touched(env),
            [(_numbers(o.shape, env), _numbers(o.stride, env), o.dtype) for o in self.outputs],
            {
                i: np.ascontiguousarray(c.function(*_numbers(c.sizes, env)))
                for i, c in enumerate(self.constants)
                if isinstance(c, Table)
            },
        )

    def _placement(self, env: Mapping[str, int]) -> Placement:
        """Arena offsets for the bucket of ``env``.

        For ``env`` itself where a size grows as a symbol shrinks (what is left of a cache).
        """
        spans = self.spans
        bucket = bucket_of(env)
        if any(evaluate(b.bytes, env) > evaluate(b.bytes, bucket) for b in spans):
            return place(spans, env)
        key = tuple(bucket.values())
        if key not in self._placements:
            self._placements[key] = place(spans, bucket)
        return self._placements[key]

    def _touched(self, env: Mapping[str, int]) -> int:
        """Bytes that the steps read and write, whole buffers."""
        return sum(evaluate(b.bytes, env) for s in self.steps for b in (*s.reads, *s.writes))

    @property
    def first_constant(self) -> int:
        """The position of the first constant in ``bases[]``."""
        return FIRST + self.inputs + len(self.outputs)

    def base_of(self, buffer: Buffer) -> int:
        """The position of a buffer's pointer in ``bases[]``."""
        first = {
            "arena": ARENA - buffer.index,
            "input": FIRST,
            "output": FIRST + self.inputs,
            "constant": self.first_constant,
            "error": ERRORS,
        }
        return first[buffer.kind] + buffer.index

    def _slots(
        self, argument: Argument, offsets: Mapping[Buffer, int], env: Mapping[str, int]
    ) -> Sequence[int]:
        if isinstance(argument, float):
            return [struct.unpack("<I", struct.pack("<f", argument))[0]]
        if isinstance(argument, Scratch):
            return [SCRATCH, 0, -(-evaluate(argument.bytes, env) // 64) * 64]
        if isinstance(argument, Value):
            start = offsets[argument.buffer] if argument.buffer.kind == "arena" else 0
            return [self.base_of(argument.buffer), start + evaluate(argument.offset, env)]
        return [evaluate(argument, env)]


def _numbers(sizes: Sequence[Int], env: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(evaluate(size, env) for size in sizes)
