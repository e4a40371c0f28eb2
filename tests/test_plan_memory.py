"""Phases and arena placement."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from torch_aio.ir.symbols import Guards, evaluate, symbol
from torch_aio.kernels.reorder import HaloZero
from torch_aio.plan.memory import ALIGNMENT, lifetimes, phases, place
from torch_aio.plan.plan import Plan
from torch_aio.plan.value import Buffer, Step

SPEC = HaloZero()


def step(reads: list[Buffer], writes: list[Buffer]) -> Step:
    """A step that only touches memory."""
    return Step(SPEC, 1, {}, tuple(reads), tuple(writes))


def buffers(count: int, size: int = 100) -> list[Buffer]:
    """Arena buffers."""
    return [Buffer("arena", size * (i + 1), i) for i in range(count)]


def test_independent_steps_share_a_phase() -> None:
    """Steps on different buffers need no barrier; a reader of what was written does."""
    a, b, c = buffers(3)
    steps = [step([], [a]), step([], [b]), step([a, b], [c])]
    assert phases(steps) == 2
    assert [s.phase for s in steps] == [0, 0, 1]


def test_writers_of_disjoint_parts_share_a_phase() -> None:
    """Two steps that write one buffer (concatenation) run at once."""
    a, b = buffers(2)
    steps = [step([], [a]), step([], [a]), step([a], [b])]
    phases(steps)
    assert [s.phase for s in steps] == [0, 0, 1]


def test_a_writer_waits_for_earlier_readers() -> None:
    """Overwriting what the phase reads needs a barrier."""
    a, b = buffers(2)
    steps = [step([a], [b]), step([], [a])]
    phases(steps)
    assert steps[1].phase == 1


@given(st.lists(st.tuples(st.sets(st.integers(0, 9)), st.integers(0, 9)), max_size=30))
def test_buffers_alive_together_never_overlap(layout: list[tuple[set[int], int]]) -> None:
    """Whatever the graph: no two buffers with a common phase share a byte."""
    pool = buffers(10)
    steps = [step([pool[i] for i in reads], [pool[write]]) for reads, write in layout]
    phases(steps)
    spans = lifetimes(steps)
    offsets, total = place(spans, {})
    for x in spans:
        assert offsets[x] % ALIGNMENT == 0
        assert offsets[x] + x.bytes <= total
        for y in spans:
            apart = spans[x][1] < spans[y][0] or spans[y][1] < spans[x][0]
            disjoint = offsets[x] + x.bytes <= offsets[y] or offsets[y] + y.bytes <= offsets[x]
            assert x is y or apart or disjoint


def test_memory_is_reused_after_its_last_reader() -> None:
    """A chain of steps needs two buffers' worth of memory, not one each."""
    pool = [Buffer("arena", 1000, i) for i in range(6)]
    steps = [step([a], [b]) for a, b in pairwise(pool)]
    phases(steps)
    _, total = place(lifetimes(steps), {})
    assert total <= 3 * 1024


def test_a_size_that_shrinks_as_its_symbol_grows_has_room() -> None:
    """Memory for the bucket above a symbol must hold what is larger below it."""
    rest = Buffer("arena", 100 - 4 * symbol("s"), 0)
    other = Buffer("arena", 4 * symbol("s"), 1)
    steps = [step([], [rest]), step([], [other]), step([rest, other], [])]
    plan = Plan(steps, 0, [], [], Guards({}))
    for s in (3, 5, 24):
        offsets, total = plan._placement({"s": s})
        ranges = sorted((offsets[b], offsets[b] + evaluate(b.bytes, {"s": s})) for b in offsets)
        assert ranges[0][1] <= ranges[1][0]
        assert ranges[1][1] <= total
