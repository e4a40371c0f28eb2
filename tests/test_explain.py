"""``torch_aio.explain``: every node once, a kernel or a reason, the user's line, the shares."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torch_aio
from torch_aio.engine.compiled import observed


class Mixed(nn.Module):
    """Products, an operator that has no kernel, a view of a result."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(16, 32)
        self.last = nn.Linear(32, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.first(x).relu()
        sorted_ = torch.sort(hidden, -1).values
        y = self.last(sorted_ + hidden)
        return y, y[0]


class Pure(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3)
        self.norm = nn.BatchNorm2d(16)
        self.last = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.conv(x)).relu().mean((2, 3))).softmax(-1)


DOORS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "compile": lambda model, x: model,
    "freeze": lambda model, x: torch.jit.freeze(torch.jit.trace(model, x)),
    "export": lambda model, x: torch_aio.compile(model, (x,)),
}


@pytest.fixture(autouse=True)
def _strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIO_STRICT", "1")
    torch.compiler.reset()


@pytest.mark.parametrize("door", DOORS)
def test_every_node_once(door: str) -> None:
    """The lines are the operations of the compiled graph, each with one verdict."""
    model, x = Mixed().eval(), torch.randn(4, 16)
    with observed() as graphs:
        found = torch_aio.explain(DOORS[door](model, x), x)
    (graph,) = graphs
    nodes = [n for n in graph.variants[-1].gm.graph.nodes if n.op == "call_function"]
    running = [n.name for n in nodes if n.meta["verdict"].kind not in ("size", "constant")]
    assert [line.node for line in found.lines] == running
    assert {line.verdict for line in found.lines} <= {"kernel", "view", "fused", "aten", "outside"}


@pytest.mark.parametrize("door", DOORS)
def test_a_node_left_to_aten_has_a_reason_and_the_users_line(door: str) -> None:
    model, x = Mixed().eval(), torch.randn(4, 16)
    found = torch_aio.explain(DOORS[door](model, x), x)
    sort = next(line for line in found.left_to_aten if line.op.startswith("sort"))
    assert sort.detail == "there is no kernel for aten.sort.default"
    assert sort.network is None
    assert re.fullmatch(r"test_explain\.py:\d+: .*torch\.sort\(hidden, -1\).*", sort.source)
    for line in found.left_to_aten:
        assert len(line.detail.split()) >= 4, f"{line.node}: {line.detail!r} is no sentence"


@pytest.mark.parametrize("door", DOORS)
def test_a_node_of_ours_names_its_kernel_or_where_it_went(door: str) -> None:
    model, x = Mixed().eval(), torch.randn(4, 16)
    found = torch_aio.explain(DOORS[door](model, x), x)
    lines = {line.node: line for line in found.lines}
    linear = [line for line in found.lines if line.op == "linear.default"]
    assert len(linear) == 2
    for line in found.lines:
        if line.verdict == "fused":
            target = line.detail.removeprefix("into ")
            assert lines[target].verdict == "kernel"
        elif line.verdict == "kernel":
            assert re.fullmatch(r"[a-z_0-9]+", line.detail), f"{line.node}: {line.detail!r}"
    assert any(line.verdict == "fused" for line in linear), "relu follows in registers"


def test_networks_and_shares() -> None:
    """Two networks around a node of PyTorch's; the shares are of nodes and of operations."""
    model, x = Mixed().eval(), torch.randn(4, 16)
    found = torch_aio.explain(model, x)
    assert found.networks == 2
    assert {line.network for line in found.lines if line.verdict == "kernel"} == {0, 1}
    left = [line for line in found.left_to_aten if line.op.startswith(("sort", "<built"))]
    assert left
    assert 0 < found.nodes < 1
    products = sum(line.flops for line in found.lines if line.op == "linear.default")
    assert products == 2 * 4 * 16 * 32 + 2 * 4 * 32 * 8
    assert 0.8 < found.flops < 1


@pytest.mark.parametrize("door", DOORS)
def test_a_model_of_ours_alone(door: str) -> None:
    model, x = Pure().eval(), torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        found = torch_aio.explain(DOORS[door](model, x), x)
    assert found.networks == 1
    assert found.left_to_aten == ()
    assert found.nodes == found.flops == 1
    conv = next(line for line in found.lines if line.op == "conv2d.default")
    assert conv.flops == 2 * 2 * 16 * 100 * 27
    assert "test_explain.py" in conv.source


def test_paths_of_modules() -> None:
    """torch.compile and export know which module a node belongs to."""
    model, x = Pure().eval(), torch.randn(2, 3, 12, 12)
    for door in ("compile", "export"):
        with torch.no_grad():
            found = torch_aio.explain(DOORS[door](model, x), x)
        paths = {line.op: line.path for line in found.lines}
        assert paths["conv2d.default"].endswith("conv")
        assert paths["linear.default"].endswith("last")


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    model, x = Mixed().eval(), torch.randn(4, 16)
    found = torch_aio.explain(model, x)
    printed = capsys.readouterr().out.splitlines()
    head = printed.index(next(row for row in printed if row.startswith("node ")))
    assert printed[head].split() == "node operation verdict kernel or reason source".split()
    rows = printed[head + 1 : head + 1 + len(found.lines)]
    assert [row.split()[0] for row in rows] == [line.node for line in found.lines]
    assert re.fullmatch(
        r"2 networks; [\d.]+% of nodes and [\d.]+% of FLOPs on our kernels",
        printed[head + 1 + len(found.lines)],
    )


def test_functions_and_keyword_arguments() -> None:
    def function(x: Tensor, *, scale: Tensor) -> Tensor:
        return torch.tanh(x * scale)

    found = torch_aio.explain(function, torch.randn(3), scale=torch.ones(3))
    assert [line.op for line in found.lines] == ["mul.Tensor", "tanh.default"]
    assert [line.verdict for line in found.lines] == ["fused", "kernel"]


def test_a_failure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that fell back to PyTorch is named with the reason, and is no share of ours."""
    from torch_aio.engine import networks

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no kernel today")

    monkeypatch.setenv("AIO_STRICT", "0")
    monkeypatch.setattr(networks, "lower", broken)
    found = torch_aio.explain(nn.Linear(4, 4), torch.randn(2, 4))
    (failure,) = found.failures
    assert "no kernel today" in failure
    assert failure in str(found)


def test_steps_with_fewer_units_than_threads_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """One row of a small linear is one unit: on two threads one of them waits."""
    model, x = nn.Linear(8, 4), torch.randn(1, 8)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        found = torch_aio.explain(model, x)
    finally:
        torch.set_num_threads(threads)
    (step,) = found.narrow
    assert (step.units, found.steps) == (1, 1)
    assert step.kernel.startswith("gemv")
    printed = capsys.readouterr().out
    assert "1 of 1 steps have fewer work units than the" in printed
    assert f"{step.node} (1: {step.kernel})" in printed
