"""Sizes that vary from call to call: one graph, right answers, no kernel for each size."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import torch_aio
from accuracy import assert_close, reference
from torch_aio.capture import compat
from torch_aio.engine.compiled import observed
from torch_aio.graph.cut import OUTSIDE

transformers = pytest.importorskip("transformers")

Inputs = tuple[Tensor, ...]


class Perceptron(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(17, 40), nn.ReLU(), nn.LayerNorm(40), nn.Linear(40, 5))


class Pictures(nn.Module):
    """Convolutions, a residual, pooling: any batch and any picture size."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, 2, 1)
        self.norm = nn.BatchNorm2d(16)
        self.deep = nn.Conv2d(16, 16, 3, 1, 1, groups=16)
        self.wide = nn.Conv2d(16, 20, 1)
        self.last = nn.Linear(20, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.norm(self.first(x)).relu(), 3, 2, 1)
        x = self.wide(x + self.deep(x).relu())
        return self.last(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Text(nn.Module):
    """A small BERT with a mask."""

    def __init__(self) -> None:
        super().__init__()
        config = transformers.BertConfig(
            hidden_size=32, num_attention_heads=4, intermediate_size=40, num_hidden_layers=2,
            vocab_size=50, max_position_embeddings=64,
        )  # fmt: skip
        self.bert = transformers.BertModel(config)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.bert(ids, attention_mask=mask).last_hidden_state


def tokens(batch: int, length: int) -> Inputs:
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[-1, max(1, length - 2) :] = 0
    return torch.randint(0, 50, (batch, length)), mask


MODELS: dict[str, tuple[Callable[[], nn.Module], Sequence[Callable[[], Inputs]], Any]] = {
    "batch of an MLP": (
        Perceptron,
        [lambda n=n: (torch.randn(n, 17),) for n in (5, 9, 33, 2, 64)],
        ({0: Dim.DYNAMIC},),
    ),
    "sequence of an MLP": (
        Perceptron,
        [lambda n=n: (torch.randn(2, n, 17),) for n in (5, 9, 33, 2, 64)],
        ({1: Dim.DYNAMIC},),
    ),
    "batch of a CNN": (
        Pictures,
        [lambda n=n: (torch.randn(n, 3, 24, 24),) for n in (2, 3, 5, 8)],
        ({0: Dim.DYNAMIC},),
    ),
    "pictures of a CNN": (
        Pictures,
        [lambda n=n: (torch.randn(2, 3, n, n + 4),) for n in (24, 32, 40, 33)],
        ({2: Dim.AUTO, 3: Dim.AUTO},),
    ),
    "text": (
        Text,
        [lambda b=b, n=n: tokens(b, n) for b, n in ((2, 9), (3, 17), (2, 31), (5, 8))],
        ({0: Dim.AUTO, 1: Dim.AUTO},) * 2,
    ),
}


@pytest.fixture(autouse=True)
def _strict(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AIO_STRICT", "1")
    torch.compiler.reset()
    with torch.no_grad():
        yield


def check(name: str, door: Callable[[nn.Module, Inputs], Any], most: int = 9) -> int:
    """Run the model on its (``most`` first) sizes, twice; returns how many graphs were compiled."""
    make, sizes, _ = MODELS[name]
    model = make().eval()
    wide = copy.deepcopy(model).double()
    calls = [size() for size in sizes[:most]]
    compiled = door(model, calls[0])
    with observed() as graphs:
        for inputs in (*calls, *calls):
            shapes = [tuple(x.shape) for x in inputs]
            assert_close(compiled(*inputs), reference(wide, *inputs), model(*inputs), f"{shapes}")
    for graph in graphs:
        for variant in graph.variants:
            assert len(variant.networks) == 1
            verdicts = [n.meta.get("verdict") for n in variant.gm.graph.nodes]
            assert not [v for v in verdicts if v and v.kind == "aten" and v != OUTSIDE]
    return len(graphs)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamic", [None, True, False])
@pytest.mark.parametrize("name", MODELS)
def test_torch_compile(name: str, dynamic: bool | None) -> None:
    """``None``: one re-capture at the second size; ``True``: none; ``False``: one graph a size."""
    door = lambda model, _: torch.compile(model, backend="aio", dynamic=dynamic)  # noqa: E731
    graphs = check(name, door, 2 if dynamic is False else 9)
    assert graphs <= {None: 2, True: 1, False: 2}[dynamic]
    assert compat.counters["aio"]["failed"] == compat.counters["aio"]["refused"] == 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_export(name: str) -> None:
    shapes = MODELS[name][2]
    if name.endswith("MLP"):  # a Sequential's only argument
        shapes = (shapes[0],)
    door = lambda model, inputs: torch_aio.compile(model, inputs, dynamic_shapes=shapes)  # noqa: E731
    assert check(name, door) == 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in MODELS if name != "text"])
def test_frozen_script(name: str) -> None:
    """The second size that differs is captured with symbols, once."""
    assert check(name, lambda model, _: torch.jit.freeze(torch.jit.script(model))) <= 2


def test_few_variants_for_many_sizes() -> None:
    """Guards that split sizes into classes are few: 40 lengths need at most three variants."""
    model = Perceptron().eval()
    compiled = torch.compile(model, backend="aio", dynamic=True)
    with observed() as graphs:
        for n in range(2, 42):
            x = torch.randn(n, 17)
            assert_close(compiled(x), reference(model, x), model(x), f"{n}")
    (graph,) = graphs
    assert len(graph.variants) <= 3


@pytest.mark.parametrize("sizes", [(1, 5, 9), (0, 4, 1, 0, 6)])
def test_sizes_zero_and_one(sizes: tuple[int, ...]) -> None:
    """An empty batch and a batch of one are answered, each by a capture of its own at most."""
    model = Perceptron().eval()
    compiled = torch.compile(model, backend="aio")
    for n in sizes:
        x = torch.randn(n, 17)
        assert_close(compiled(x), reference(model, x), model(x), f"{n}")
    assert compat.counters["aio"]["compiled"] <= 4


class Halves(nn.Module):
    """Twice as many rows in one input as in the other: that they fit, only the example says."""

    def forward(self, x: Tensor, half: Tensor) -> Tensor:
        whole = torch.cat([half, half])
        return x.view_as(whole) * 2 + whole


def test_sizes_that_are_equal_for_the_example_only() -> None:
    model = Halves().eval()
    compiled = torch.jit.freeze(torch.jit.script(model))
    for n in (3, 2, 7, 8):
        inputs = torch.randn(2 * n, 8), torch.randn(n, 8)
        assert_close(compiled(*inputs), reference(model, *inputs), model(*inputs), f"{n}")


def test_a_size_that_is_not_dynamic_is_one_clear_error() -> None:
    model = Perceptron().eval()
    compiled = torch_aio.compile(model, (torch.randn(4, 17),))
    with pytest.raises(torch_aio.InputError, match=r"5"):
        compiled(torch.randn(5, 17))
