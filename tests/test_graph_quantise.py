"""The int8 filter: who is converted, by which name, through every door, and how near it stays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import torch_aio
from torch_aio.engine import compiled
from torch_aio.engine.compiled import CompiledGraph


@pytest.fixture(autouse=True)
def _strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIO_STRICT", "1")


class Layer(nn.Module):
    """Projections of one input, a product of two activations, a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(48, 40), nn.Linear(48, 40, bias=False)
        self.dense = nn.Linear(19, 33)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(torch.matmul(self.query(x), self.key(x).transpose(1, 2))).tanh() + 1


class Model(nn.Module):
    """One layer below a name."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Layer()

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x)


def converted(graphs: list[CompiledGraph]) -> list[str]:
    """The kernels of the steps that multiply bytes, sorted."""
    plans = [n.plan for g in graphs for v in g.variants for n in v.networks.values()]
    names = [step.spec.name for plan in plans for step in plan.steps]
    return sorted(n.split("_")[0] for n in names if n.startswith(("gemm_int8", "gemv_int8")))


def run(model: nn.Module, pattern: str, *inputs: Tensor) -> tuple[list[str], float]:
    """What was converted, and the error, with ``int8_filter=pattern``."""
    with torch.no_grad(), compiled.observed() as graphs:
        own = torch_aio.compile(model, inputs, options={"int8_filter": pattern})
        answer, want = own(*inputs), model(*inputs)
    return converted(graphs), distance(answer, want)


def distance(answer: Tensor, want: Tensor) -> float:
    return float((answer - want.detach()).abs().max() / want.abs().max())


MODEL, INPUT = Model().eval(), torch.randn(2, 19, 48)


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        (".*", 3),  # the projections are merged
        ("Linear", 2),
        ("FullyConnected", 2),
        ("Linear|Conv2d", 2),
        ("Matmul", 1),
        ("FullyConnected:encoder.dense$", 1),
        ("Linear:encoder.query", 1),
        ("Linear:encoder.(query|dense)", 2),
        ("encoder", 0),
        ("Relu", 0),
    ],
)
def test_a_filter_matches_kind_and_path_from_the_beginning(pattern: str, count: int) -> None:
    """Merged where all may be, apart where the filter parts them; about a percent of error."""
    found, error = run(MODEL, pattern, INPUT)
    assert len(found) == count, found
    assert error < (0.03 if count else 1e-5)


@pytest.mark.parametrize("rows", [1, 2, 4, 5, 40])
def test_few_rows_quantise_the_weights_alone(rows: int) -> None:
    """Up to four rows read bytes from memory and keep their activations."""
    model = nn.Sequential(nn.Linear(130, 70), nn.GELU(), nn.Linear(70, 9))
    found, error = run(model.eval(), ".*", torch.randn(rows, 130))
    assert found == ["gemv" if rows <= 4 else "gemm"] * 2
    assert error < 0.03


def test_products_of_any_ranks() -> None:
    """Broadcast batches, transposed operands, scaled sums."""

    class Products(nn.Module):
        def forward(self, x: Tensor, y: Tensor, c: Tensor) -> tuple[Tensor, ...]:
            return (
                x @ y,
                torch.baddbmm(c, x, y.relu(), beta=0.5, alpha=2.0),
                x @ y[0],
                (x.mT[0] @ c[0]).mT,
            )

    x, y, c = torch.randn(3, 9, 21), torch.randn(3, 21, 17), torch.randn(3, 9, 17)
    with torch.no_grad(), compiled.observed() as graphs:
        got = torch_aio.compile(Products(), (x, y, c), options={"int8_filter": "Matmul"})(x, y, c)
    assert len(converted(graphs)) == 4
    for answer, want in zip(got, Products()(x, y, c), strict=True):
        assert answer.shape == want.shape
        assert distance(answer, want) < 0.02


def test_batches_that_lie_in_any_way() -> None:
    """Constants and activations of several matrices, transposed, broadcast, permuted, empty."""

    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(3, 9, 4))

        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
            wide = torch.matmul(x.permute(1, 2, 0, 3), y)
            few, vector = torch.matmul(x[:, 0, :2], self.w), torch.matmul(x[0, 0, 0], self.w[1])
            empty = torch.matmul(x[..., :0], self.w[:, :0].unsqueeze(1))
            return wide, torch.matmul(x[:, 1], self.w), few, vector, empty, x[:, :1] @ self.w

    model, x, y = Several().eval(), torch.randn(3, 4, 6, 9), torch.randn(4, 6, 9, 5)
    with torch.no_grad(), compiled.observed() as graphs:
        got = torch_aio.compile(model, (x, y), options={"int8_filter": ".*"})(x, y)
        want = model(x, y)
    assert converted(graphs) == ["gemm", "gemm", "gemm", "gemv", "gemv"]
    for answer, right in zip(got, want, strict=True):
        assert answer.shape == right.shape
        assert answer.stride() == right.stride()
        assert distance(answer + 1e-9, right + 1e-9) < 0.02


def test_the_other_doors_take_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile and frozen TorchScript read AIO_QUANTIZE_INT8_FILTER."""
    monkeypatch.setenv("AIO_QUANTIZE_INT8_FILTER", "Linear:encoder.dense")
    want = MODEL(INPUT).detach()
    traced = torch.jit.trace(MODEL, INPUT)
    for door in (torch.compile(MODEL, backend="aio"), torch.jit.freeze(traced)):
        with torch.no_grad(), compiled.observed() as graphs:
            answers = [door(INPUT) for _ in range(3)]
        assert converted(graphs) == ["gemm"]
        assert distance(answers[-1], want) < 0.03


def test_sizes_may_change() -> None:
    """One graph serves other numbers of rows."""
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU()).eval()
    own = torch.compile(model, backend="aio", dynamic=True, options={"int8_filter": ".*"})
    with torch.no_grad():
        for rows in (7, 30, 300, 1, 2):
            x = torch.randn(rows, 64)
            assert distance(own(x), model(x)) < 0.03


def test_what_is_not_converted_says_why() -> None:
    """More terms than 32 bits can sum, and what has no int8 form."""
    with torch.no_grad(), compiled.observed() as graphs:
        x = torch.randn(6, (1 << 16) + 4)
        torch_aio.compile(nn.Linear(x.shape[1], 8).eval(), (x,), options={"int8_filter": ".*"})(x)
    assert converted(graphs) == []
    refused = [n.meta.get("refused", {}) for n in graphs[0].variants[0].gm.graph.nodes]
    assert {"quantise": "sums of more than 65536 terms do not fit 32 bits"} in refused


def test_a_changed_weight_is_quantised_again() -> None:
    """Packs follow their weights."""
    model, x = nn.Linear(40, 24).eval(), torch.randn(8, 40)
    with torch.no_grad():
        own = torch.compile(model, backend="aio", options={"int8_filter": ".*"})
        own(x)
        model.weight.mul_(-3.0)
        assert distance(own(x), model(x)) < 0.03
