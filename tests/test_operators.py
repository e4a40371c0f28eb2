"""Every operator of the table through every front door: one network, nothing left to PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import torch_aio
from accuracy import assert_close, reference, run
from operator_cases import CASES, FAMILIES, Case
from random_program import LAYOUTS
from torch_aio.engine.compiled import CompiledGraph, observed
from torch_aio.graph.cut import OUTSIDE
from torch_aio.plan.rows import ROWS

SPELLED_OTHERWISE = {
    *("add.Scalar", "sub.Scalar", "mul.Scalar", "div.Scalar", "addmm.default", "baddbmm.default"),
    *("mm.default", "bmm.default", "sum.default", "mean.default", "max.default", "min.default"),
    *("any.default", "all.default", "t.default", "flatten.using_ints", "_unsafe_view.default"),
    *(
        "<built-in function getitem>",
        "squeeze.default",
        "masked_fill.Scalar",
        "masked_fill.Tensor",
        "squeeze.dim",
        "alias.default",
        "detach.default",
        "convolution.default",
    ),
}
"""Rows whose operators the passes spell in another way: they serve graphs that ran fewer passes."""

reached: set[Any] = set()


class Bundle(nn.Module):
    """Applications of cases side by side, each to its own tensors."""

    def __init__(self, cases: Sequence[Case], counts: Sequence[int]) -> None:
        super().__init__()
        known: dict[Case, list[str]] = {}
        self.steps, start = [], 0
        for case, count in zip(cases, counts, strict=True):
            if case not in known:
                known[case] = [f"w{len(known)}_{j}" for j in range(len(case.weights))]
                for name, shape in zip(known[case], case.weights, strict=True):
                    self.register_buffer(name, torch.randn(shape))
            self.steps.append((case.apply, start, start + count, known[case]))
            start += count

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The results in order."""
        return tuple(
            apply(*tensors[start:stop], *[getattr(self, name) for name in names])
            for apply, start, stop, names in self.steps
        )


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


def frozen(model: nn.Module, inputs: tuple[Tensor, ...], *_: Any) -> Any:
    return torch.jit.freeze(torch.jit.trace(model, inputs, check_trace=False))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_operator_in_every_layout(case: Case) -> None:
    """Contiguous, transposed, stepped, offset, expanded, channels last, no rows and one row.

    Elementwise operators share one kernel family: each is tried in two layouts, all in turn.
    """
    names = list(LAYOUTS)
    if case in FAMILIES["elementwise"]:
        names = ["contiguous", names[1 + CASES.index(case) % (len(names) - 1)]]
    sets = [tuple(LAYOUTS[name](x) for x in case.inputs(5)) for name in names]
    for n in (0, 1, 33):
        if n >= case.least:
            sets.append(case.inputs(n))
            names.append(f"n = {n}")
    model = Bundle([case] * len(sets), [len(s) for s in sets]).eval()
    inputs = tuple(x for s in sets for x in s)
    with observed() as graphs, torch.no_grad():
        ours = frozen(model, inputs)(*inputs)  # the door that captures fastest
    assert_ours(graphs)
    wide, eager = reference(model, *inputs), run(model, inputs)
    for name, y, ref, own in zip(names, ours, wide, eager, strict=True):
        assert_close(y, ref, own, f"{case}, {name}")


def dynamic(model: nn.Module, inputs: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> Any:
    """Sizes that vary with n are dynamic from the first call on."""
    for x, y in zip(inputs, others, strict=True):
        for d in range(x.ndim):
            if x.shape[d] != y.shape[d]:
                torch._dynamo.maybe_mark_dynamic(x, d)
    return torch.compile(model, backend="aio")


def exported(model: nn.Module, inputs: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> Any:
    """Sizes that vary with n are dynamic."""
    sizes = [
        {d: Dim.AUTO for d in range(x.ndim) if x.shape[d] != y.shape[d]}
        for x, y in zip(inputs, others, strict=True)
    ]
    return torch_aio.compile(model, inputs, dynamic_shapes=(tuple(sizes),))


DOORS = {
    "compile": lambda model, *_: torch.compile(model, backend="aio", dynamic=False),
    "compile dynamic": dynamic,
    "freeze": frozen,
    "export dynamic": exported,
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("family", FAMILIES)
def test_family_through_every_door(family: str, door: str) -> None:
    """All operators of a family in one graph, called with two sizes."""
    torch.compiler.reset()
    cases = [case for case in FAMILIES[family] if case.varies]
    model = Bundle(cases, [len(case.inputs(5)) for case in cases]).eval()
    small, large = (tuple(x for case in cases for x in case.inputs(n)) for n in (5, 11))
    with observed() as graphs, torch.no_grad():
        compiled = DOORS[door](model, small, large)
        for inputs in (small, large, small):
            ours, wide, eager = compiled(*inputs), reference(model, *inputs), run(model, inputs)
            for case, y, ref, own in zip(cases, ours, wide, eager, strict=True):
                assert_close(y, ref, own, f"{case}, {door}")
    assert_ours(graphs)


def test_every_row_is_reached() -> None:
    """The table of cases covers the operator table."""
    if len(reached) < len(ROWS) // 2:
        pytest.skip("the tests above did not run")
    missing = {str(row.op).removeprefix("aten.") for row in ROWS if row.op not in reached}
    assert missing <= SPELLED_OTHERWISE
