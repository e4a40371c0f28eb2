"""Every operator of the table through every front door: one network, nothing left to PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import torch
from accuracy import assert_close, reference, run
from operator_cases import CASES, FAMILIES, Case
from random_graphs import LAYOUTS
from torch import Tensor, nn
from torch.export import Dim

import torch_aio
from torch_aio.engine.compiled import CompiledGraph, observed
from torch_aio.graph.cut import OUTSIDE
from torch_aio.plan.rows import ROWS

UNREACHED: dict[str, str] = {}
"""Rows that no door's graph holds after the passes, and why they exist."""

reached: set[Any] = set()


class Bundle(nn.Module):
    """Applications of cases side by side, each to its own tensors."""

    def __init__(self, cases: Sequence[Case], counts: Sequence[int]) -> None:
        super().__init__()
        self.cases, self.counts = cases, counts
        for i, case in enumerate(dict.fromkeys(cases)):
            for j, shape in enumerate(case.weights):
                self.register_buffer(f"w{i}_{j}", torch.randn(shape))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The results in order."""
        results, start = [], 0
        order = list(dict.fromkeys(self.cases))
        for case, count in zip(self.cases, self.counts, strict=True):
            i = order.index(case)
            weights = [getattr(self, f"w{i}_{j}") for j in range(len(case.weights))]
            results.append(case.apply(*tensors[start : start + count], *weights))
            start += count
        return tuple(results)


def assert_ours(graphs: Iterable[CompiledGraph]) -> None:
    """One network of our kernels, and no node left to PyTorch but views of results."""
    graphs = list(graphs)
    assert graphs
    for graph in graphs:
        variant = graph.variants[-1]
        for node in variant.gm.graph.nodes:
            verdict = node.meta.get("verdict")
            if verdict is None or verdict == OUTSIDE:
                continue
            assert verdict.kind != "aten", f"{node.format_node()}: {verdict.reason}"
            reached.update([node.target] if verdict.is_ours else [])
        assert len(variant.networks) == 1


@pytest.fixture(autouse=True)
def _strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIO_STRICT", "1")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operator_in_every_layout(case: Case) -> None:
    """Contiguous, transposed, stepped, offset, expanded, channels last, no rows and one row."""
    sets = [tuple(arrange(x) for x in case.inputs(5)) for arrange in LAYOUTS.values()]
    names = list(LAYOUTS)
    for n in (0, 1, 33):
        if n >= case.least:
            sets.append(case.inputs(n))
            names.append(f"n = {n}")
    model = Bundle([case] * len(sets), [len(s) for s in sets]).eval()
    inputs = tuple(x for s in sets for x in s)
    with observed() as graphs, torch.no_grad():
        ours = torch_aio.compile(model, inputs)(*inputs)
    assert_ours(graphs)
    wide, eager = reference(model, *inputs), run(model, inputs)
    for name, y, ref, own in zip(names, ours, wide, eager, strict=True):
        assert_close(y, ref, own, f"{case}, {name}")


def frozen(model: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    return torch.jit.freeze(torch.jit.trace(model, inputs, check_trace=False))


def exported(model: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """Sizes that vary with n are dynamic."""
    sizes = [
        {d: Dim.AUTO for d in range(x.ndim) if x.shape[d] == 5} or None for x in inputs
    ]
    return torch_aio.compile(model, inputs, dynamic_shapes=(tuple(sizes),))


DOORS = {
    "compile": lambda model, _: torch.compile(model, backend="aio", dynamic=False),
    "compile dynamic": lambda model, _: torch.compile(model, backend="aio", dynamic=True),
    "freeze": frozen,
    "export dynamic": exported,
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("family", FAMILIES)
def test_family_through_every_door(family: str, door: str) -> None:
    """All operators of a family in one graph, called with two sizes."""
    torch.compiler.reset()
    cases = FAMILIES[family]
    small, large = ([case.inputs(n) for case in cases] for n in (5, 11))
    model = Bundle(cases, [len(s) for s in small]).eval()
    with observed() as graphs, torch.no_grad():
        compiled: Any = None
        for sets in (small, large, small):
            inputs = tuple(x for s in sets for x in s)
            compiled = compiled or DOORS[door](model, inputs)
            ours, wide, eager = compiled(*inputs), reference(model, *inputs), run(model, inputs)
            for case, y, ref, own in zip(cases, ours, wide, eager, strict=True):
                assert_close(y, ref, own, f"{case}, {door}")
    assert_ours(graphs)


def test_every_row_is_reached() -> None:
    """The table of cases covers the operator table."""
    if len(reached) < len(ROWS) // 2:
        pytest.skip("the tests above did not run")
    missing = {str(row.op) for row in ROWS} - {str(op) for op in reached}
    assert missing == set(UNREACHED)
