"""Claim, cut and layout: what is ours, what runs together, what lies in blocks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torch_aio
from accuracy import assert_close, reference, run
from torch_aio.engine import compiled
from torch_aio.engine.variant import Variant


@pytest.fixture(autouse=True)
def _strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIO_STRICT", "1")


def variant_of(model: nn.Module, *inputs: Tensor) -> Variant:
    """The compiled graph of a model, whose answer is checked."""
    with torch.no_grad(), compiled.observed() as graphs:
        answer = torch_aio.compile(model, inputs)(*inputs)
        assert_close(answer, reference(model, *inputs), run(model, inputs))
    (graph,) = graphs
    (variant,) = graph.variants
    return variant


def nodes(variant: Variant, name: str) -> list[Any]:
    """The nodes of an operator, by the name it has in ``torch.ops``."""
    return [n for n in variant.gm.graph.nodes if str(n.target).split(".")[1:2] == [name]]


class Between(nn.Module):
    """Ours, PyTorch's own, ours again, with a value that skips the middle."""

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(x) + 1
        b = torch.linalg.matrix_exp(a)
        return torch.sigmoid(b) * a


def test_a_node_without_a_kernel_cuts_the_graph_in_two() -> None:
    """What comes before and after an ATen node are networks; the reason names the operator."""
    variant = variant_of(Between(), torch.randn(4, 4))
    assert len(variant.networks) == 2
    left = [n for n in variant.gm.graph.nodes if "verdict" in n.meta]
    reasons = {n.meta["verdict"].reason for n in left if n.meta["verdict"].kind == "aten"}
    assert any("matrix_exp" in reason for reason in reasons), reasons
    stages = sorted(variant.networks)
    assert all(stage % 2 == 0 for stage in stages)


class Branches(nn.Module):
    """Two branches of ours around one ATen node that neither needs."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.relu(x) * 2, torch.linalg.matrix_exp(x)


def test_nodes_that_need_no_aten_result_stay_in_one_network() -> None:
    """An ATen node beside the network does not divide it."""
    variant = variant_of(Branches(), torch.randn(3, 3))
    assert len(variant.networks) == 1


class Seen(nn.Module):
    """A view that leaves the network and is used inside as well."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.relu(x).transpose(0, 1)
        return y, torch.tanh(y)


def test_a_view_that_leaves_is_made_by_pytorch() -> None:
    """The result is a view of a whole tensor, as in eager; inside, the view costs nothing."""
    variant = variant_of(Seen(), torch.randn(3, 5))
    kinds = sorted(n.meta["verdict"].kind for n in nodes(variant, "transpose"))
    assert kinds == ["outside", "view"]
    assert len(variant.networks) == 1


class Convolutions(nn.Module):
    """Convolutions, activations, a residual, pooling: one blocked stretch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 17, 3, padding=1)
        self.second = nn.Conv2d(17, 17, 3, padding=1)
        self.last = nn.Linear(17, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x))
        y = torch.sigmoid(self.second(y) + y)
        return self.last(torch.nn.functional.adaptive_avg_pool2d(y, 1).flatten(1))


def test_one_change_of_layout_after_the_last_convolution() -> None:
    """Between the first convolution and the pool every value is blocked: a single reorder."""
    variant = variant_of(Convolutions(), torch.randn(2, 3, 9, 11))
    assert len(nodes(variant, "reorder")) == 1
    blocked = {"conv2d", "relu", "add", "sigmoid", "adaptive_avg_pool2d"}
    for name in blocked:
        assert [n.meta["layout"] for n in nodes(variant, name)].count("plain") == 0, name
    assert [n.meta["layout"] for n in nodes(variant, "linear")] == ["plain"]


def test_padding_lanes_stay_zero_behind_functions_that_are_not_zero_at_zero() -> None:
    """17 channels and a sigmoid: the lanes past the last channel must not reach the next sum."""
    model = nn.Sequential(nn.Conv2d(3, 17, 1), nn.Sigmoid(), nn.Conv2d(17, 5, 1)).eval()
    variant_of(model, torch.randn(1, 3, 4, 4))


class PerChannel(nn.Module):
    """A squeeze-and-excite block: a blocked operand of one pixel a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 20, 3)
        self.gate = nn.Conv2d(20, 20, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        gate = torch.sigmoid(self.gate(torch.nn.functional.adaptive_avg_pool2d(y, 1)))
        return y * gate + gate


def test_channel_operands_stay_blocked() -> None:
    """Scaling every channel needs no other layout."""
    variant = variant_of(PerChannel().eval(), torch.randn(2, 3, 7, 9))
    assert len(nodes(variant, "reorder")) == 1


class Broadcast(nn.Module):
    """An operand that varies along the plane but not by channel: not for blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor, row: Tensor) -> Tensor:
        return torch.relu(self.conv(x) * row)


def test_other_broadcasts_run_on_plain_tensors() -> None:
    """[W] beside [N, C, H, W]: the product is computed plain."""
    variant = variant_of(Broadcast().eval(), torch.randn(1, 3, 6, 7), torch.randn(5))
    assert [n.meta["layout"] for n in nodes(variant, "mul")] == ["plain"]
