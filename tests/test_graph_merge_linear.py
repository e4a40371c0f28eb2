"""Pass ``merge_linear``: layers that read one input become one product."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import torch_aio
from graph_forms import Hand, agree, targets
from torch_aio.config import Options
from torch_aio.graph import pipeline
from torch_aio.graph.merge_linear import merge_linear

aten = torch.ops.aten


class Heads(nn.Module):
    """Projections of different widths, some without bias, and attention with shared keys."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(24, 32)
        self.k = nn.Linear(24, 16, bias=False)
        self.v = nn.Linear(24, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            y.unflatten(-1, (-1, 8)).transpose(1, 2) for y in (self.q(x), self.k(x), self.v(x))
        )
        y = nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return y.transpose(1, 2).flatten(2)


def layer(h: Hand, x: Any, width: int, *, bias: bool = True) -> Any:
    """A linear layer whose result is read as heads of 4."""
    held = [h.constant(torch.randn(width, 8)), *([h.constant(torch.randn(width))] if bias else [])]
    y = h.op(aten.linear.default, x, *held)
    return h.op(aten.view.default, y, [2, 5, width // 4, 4])


def summed(h: Hand, *heads: Any) -> Any:
    """Read heads so that their strides do not matter."""
    parts = [h.op(aten.sum.dim_IntList, head, [1, 2]) for head in heads]
    return h.op(aten.cat.default, parts, 0)


@pytest.mark.parametrize("biases", [(True, True, True), (False, False, False), (True, False, True)])
def test_layers_of_any_widths_become_slices_of_one(biases: tuple[bool, ...]) -> None:
    x = torch.randn(2, 5, 8)
    h = Hand(x)
    widths = zip((8, 4, 12), biases, strict=True)
    gm = h.done(summed(h, *(layer(h, h.inputs[0], n, bias=b) for n, b in widths)))
    assert agree(gm, merge_linear, [x]) == 1
    found = targets(gm)
    assert found.count("linear") == 1
    assert found.count("slice") == 3
    assert found.count("cat") == 1 + 1 + any(biases)


def test_each_input_has_a_product_of_its_own() -> None:
    x, y = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    h = Hand(x, y)
    gm = h.done(summed(h, *(layer(h, source, 8) for source in (*h.inputs, *h.inputs))))
    assert agree(gm, merge_linear, [x, y]) == 2
    assert targets(gm).count("linear") == 2


def computed(h: Hand) -> Any:
    x, w = h.inputs
    others = [h.op(aten.view.default, h.op(aten.linear.default, x, w), [2, 5, 2, 4])]
    return summed(h, layer(h, x, 8), *others)


def activated(h: Hand) -> Any:
    y = h.op(aten.linear.default, h.inputs[0], h.constant(torch.randn(8, 8)))
    y = h.op(aten.view.default, h.op(aten.gelu.default, y), [2, 5, 2, 4])
    return summed(h, layer(h, h.inputs[0], 8), y)


def returned(h: Hand) -> Any:
    h.op(aten.sum.dim_IntList, layer(h, h.inputs[0], 8), [0])
    return h.op(aten.linear.default, h.inputs[0], h.constant(torch.randn(8, 8)))


def flattened(h: Hand) -> Any:
    y = h.op(aten.linear.default, h.inputs[0], h.constant(torch.randn(8, 8)))
    return summed(h, layer(h, h.inputs[0], 8), h.op(aten.view.default, y, [2, 1, 10, 4]))


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (computed, "its weights are no constants"),
        (activated, "what follows is computed in its registers"),
        (returned, "the caller sees how it lies"),
        (flattened, "aten.view.default needs it in one piece"),
    ],
)
def test_a_layer_that_stays_says_why(build: Any, reason: str) -> None:
    """Two layers of one input, one of which may not be a slice."""
    inputs = torch.randn(2, 5, 8), torch.randn(8, 8)
    h = Hand(*inputs)
    gm = h.done(build(h))
    assert agree(gm, merge_linear, inputs) == 0
    reasons = [node.meta["refused"] for node in gm.graph.nodes if "refused" in node.meta]
    assert reasons == [{"merge_linear": reason}]


def test_one_row_reads_its_weights_as_they_lie() -> None:
    x = torch.randn(1, 8)
    h = Hand(x)
    weights = [h.constant(torch.randn(4, 8)) for _ in range(2)]
    rows = [h.op(aten.linear.default, h.inputs[0], w) for w in weights]
    gm = h.done(h.op(aten.cat.default, rows, 0))
    assert agree(gm, merge_linear, [x]) == 0


def test_packs_of_the_merged_weight_only_and_a_changed_one_counts() -> None:
    model, x = Heads().eval(), torch.randn(2, 7, 24)
    with torch.inference_mode():
        compiled = torch_aio.compile(model, (x,))
        for _ in range(2):
            torch.testing.assert_close(compiled(x), model(x))
            with torch.no_grad():
                model.k.weight.mul_(2.0)


@pytest.mark.parametrize("flag", [True, False])
def test_the_option_and_the_variable_switch_it(flag: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (merge_linear in pipeline.chosen(Options(merge_linear=flag))) == flag
    monkeypatch.setenv("AIO_MERGE_LINEAR", str(int(flag)))
    torch.compiler.reset()  # another Heads, compiled by the other parameter, would do
    table = torch_aio.explain(Heads().eval(), torch.randn(2, 7, 24))
    assert [line.op for line in table.lines].count("linear.default") == (1 if flag else 3)
