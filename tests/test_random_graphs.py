"""Random modules of supported operators through the front doors, strictly, against fp64.

100 programs by default; HYPOTHESIS_PROFILE=long draws 1000. The last test prints and bounds the
share of nodes that ran on our kernels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from hypothesis import given, note
from hypothesis import strategies as st
from torch.fx import Node
from torch.utils import _pytree as pytree

import torch_aio
from accuracy import assert_close, error
from random_graphs import programs
from random_operators import TABLE
from random_program import Program
from torch_aio.engine.compiled import CompiledGraph, observed
from torch_aio.graph.cut import OUTSIDE


def exported(program: Program) -> Callable[..., Any]:
    return torch_aio.compile(program.module(), program.arguments())


def compiled(program: Program) -> Callable[..., Any]:
    torch.compiler.reset()
    return torch.compile(program.module(), backend="aio")


def frozen(program: Program) -> Callable[..., Any]:
    traced = torch.jit.trace(program.module(), program.arguments(), check_trace=False)
    return torch.jit.freeze(traced)


DOORS = {"export": exported, "compile": compiled, "freeze": frozen}
DRAWN = ("export",) * 6 + ("compile", "freeze")
"""Three programs of four go through the fastest door."""

ran: Counter[str] = Counter()
left: Counter[str] = Counter()


def count(graphs: Iterable[CompiledGraph]) -> None:
    """Add up the nodes that run at each call: ours, and those left to PyTorch by reason."""
    for graph in graphs:
        for node in graph.variants[-1].gm.graph.nodes:
            verdict = node.meta.get("verdict")
            if verdict is None or verdict.kind in ("size", "constant") or verdict == OUTSIDE:
                continue
            ran["ours" if verdict.is_ours else "aten"] += 1
            if not verdict.is_ours:
                left[f"{_name(node)}: {verdict.reason}"] += 1


def _name(node: Node) -> str:
    return str(node.target).removeprefix("aten.")


@pytest.fixture(autouse=True, scope="module")
def _strict() -> Iterable[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIO_STRICT", "1")
        yield


@pytest.mark.filterwarnings("ignore:.*degrees of freedom is <= 0")  # eager's, of one element
@given(programs(TABLE), st.sampled_from(DRAWN))
def test_random_program(program: Program, door: str) -> None:
    """Two calls give eager's answer within the bound of accuracy.py; inputs stay as they were."""
    note(f"{door}\n{program}")
    inputs = program.arguments()
    with torch.no_grad():
        eager, reference = program.module()(*inputs), program.reference()
        with observed() as graphs:
            run = DOORS[door](program)
            first = run(*inputs)
            second = run(*inputs)
    count(graphs)
    assert_conditioned(eager, reference)
    assert_close(first, reference, eager, door)
    assert_close(second, reference, eager, f"{door}, second call")
    for now, before in zip(inputs, program.arguments(), strict=True):
        assert torch.equal(now.nan_to_num(), before.nan_to_num()), "an input was written to"


def assert_conditioned(eager: Any, reference: Any) -> None:
    """The generator keeps its promise: the bound is never eager's own large error."""
    for plain, exact in zip(*map(pytree.tree_leaves, (eager, reference)), strict=True):
        if plain.is_floating_point():
            finite = plain.isfinite()
            assert error(plain[finite], exact[finite]) < 1e-5


def test_share_of_nodes_on_our_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    """An engine that leaves everything to PyTorch must fail: 95 % of the nodes above are ours."""
    if not ran:
        pytest.skip("no random program was run")
    share = ran["ours"] / ran.total()
    with capsys.disabled():
        print(f"\n{share:.1%} of {ran.total()} nodes of random programs ran on our kernels")
        for reason, times in left.most_common():
            print(f"  {times:4d}  {reason}")
    assert share >= 0.95
