"""Barriers and arena: steps between two barriers run at once, so memory lives in whole phases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch_aio.ir.symbols import evaluate
from torch_aio.plan.value import Buffer, Step

ALIGNMENT = 64


def phases(steps: Sequence[Step]) -> int:
    """Number the phase of each step: a barrier only where data flows; returns how many there are.

    A step opens a new phase where it reads what the current phase writes, or writes what it reads.
    Two steps that write the same buffer write disjoint parts and may share a phase.
    """
    phase, read, written = 0, set[Buffer](), set[Buffer]()
    for step in steps:
        if not written.isdisjoint(step.reads) or not read.isdisjoint(step.writes):
            phase, read, written = phase + 1, set(), set()
        step.phase = phase
        read.update(step.reads)
        written.update(step.writes)
    return phase + 1


def lifetimes(steps: Sequence[Step]) -> dict[Buffer, tuple[int, int]]:
    """The first and last phase that touches each arena buffer."""
    spans: dict[Buffer, tuple[int, int]] = {}
    for step in steps:
        for buffer in (*step.reads, *step.writes):
            if buffer.kind == "arena":
                first, _ = spans.get(buffer, (step.phase, step.phase))
                spans[buffer] = (first, step.phase)
    return spans


def place(
    spans: Mapping[Buffer, tuple[int, int]], env: Mapping[str, int]
) -> tuple[dict[Buffer, int], int]:
    """Offsets in the arena, and its size: largest first, each at the lowest gap of its lifetime."""
    sizes = {b: -(-max(evaluate(b.bytes, env), 1) // ALIGNMENT) * ALIGNMENT for b in spans}
    placed: list[tuple[int, int, tuple[int, int]]] = []
    offsets: dict[Buffer, int] = {}
    for buffer in sorted(spans, key=lambda b: (-sizes[b], spans[b], b.index)):
        first, last = spans[buffer]
        offset = 0
        for begin, end, (other_first, other_last) in sorted(placed):
            if other_last < first or last < other_first:
                continue
            if offset + sizes[buffer] <= begin:
                break
            offset = max(offset, end)
        offsets[buffer] = offset
        placed.append((offset, offset + sizes[buffer], (first, last)))
    return offsets, max((end for _, end, _ in placed), default=0)
