"""Passes ``fold_batch_norm`` and ``hoist_constants``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from graph_forms import Hand, agree, exported, targets
from torch_aio.graph.fold_batch_norm import fold_batch_norm
from torch_aio.graph.hoist_constants import hoist_constants
from torch_aio.graph.normalise import normalise

aten = torch.ops.aten


def trained(norm: nn.Module) -> nn.Module:
    """A batch norm whose statistics and weights are not the initial ones."""
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(tensor, 0.5, 1.5)
    return norm


def fold(gm: GraphModule) -> int:
    normalise(gm)
    count = fold_batch_norm(gm)
    hoist_constants(gm)
    return count


def refusals(gm: GraphModule, name: str) -> list[str]:
    return [n.meta["refused"][name] for n in gm.graph.nodes if name in n.meta.get("refused", {})]


FOLDED: list[tuple[nn.Module, tuple[int, ...], list[str]]] = [
    (nn.Sequential(nn.Conv2d(3, 4, 3), trained(nn.BatchNorm2d(4))), (2, 3, 8, 8), ["conv2d"]),
    (
        nn.Sequential(
            nn.Conv2d(4, 8, 3, padding=1, groups=4, bias=False), trained(nn.BatchNorm2d(8))
        ),
        (1, 4, 8, 8),
        ["conv2d"],
    ),
    (nn.Sequential(nn.Conv1d(3, 4, 3), trained(nn.BatchNorm1d(4))), (2, 3, 8), ["conv1d"]),
    (nn.Sequential(nn.Conv3d(3, 4, 3), trained(nn.BatchNorm3d(4))), (1, 3, 5, 5, 5), ["conv3d"]),
    (nn.Sequential(nn.Linear(3, 4), trained(nn.BatchNorm1d(4))), (5, 3), ["linear"]),
    (
        nn.Sequential(nn.ConvTranspose2d(3, 4, 3), trained(nn.BatchNorm2d(4))),
        (1, 3, 4, 4),
        ["convolution"],
    ),
    (nn.Sequential(trained(nn.BatchNorm2d(3)), nn.Conv2d(3, 4, 3)), (1, 3, 8, 8), ["conv2d"]),
    (
        nn.Sequential(trained(nn.BatchNorm2d(3)), nn.Conv2d(3, 4, 3, padding=1)),
        (1, 3, 8, 8),
        ["mul", "add", "conv2d"],
    ),
    (nn.Sequential(trained(nn.BatchNorm1d(3))), (4, 3), ["mul", "add"]),
]


@pytest.mark.parametrize("case", range(len(FOLDED)))
def test_batch_norm_becomes_part_of_its_neighbour(case: int) -> None:
    model, shape, expected = FOLDED[case]
    torch.manual_seed(0)
    x = torch.randn(shape)
    gm = exported(model, x)
    assert agree(gm, fold, [x]) == 1
    assert targets(gm) == expected


def test_a_convolution_with_other_readers_is_not_scaled() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), trained(nn.BatchNorm2d(4))

        def forward(self, x: torch.Tensor) -> Any:
            y = self.conv(x)
            return y + self.norm(y)

    x = torch.randn(1, 3, 8, 8)
    gm = exported(Both(), x)
    agree(gm, fold, [x])
    assert targets(gm) == ["conv2d", "mul", "add", "add"]


def test_a_batch_norm_without_a_neighbour_says_why() -> None:
    x = torch.randn(4, 3)
    gm = exported(nn.Sequential(trained(nn.BatchNorm1d(3))), x)
    normalise(gm)
    norms = [n for n in gm.graph.nodes if n.target is aten.batch_norm.default]
    fold_batch_norm(gm)
    assert norms[0].meta["refused"]["fold_batch_norm"] == (
        "the input of this batch norm is not a convolution or linear; "
        "its result does not go into one convolution only"
    )


def test_a_changed_weight_changes_the_folded_one() -> None:
    """The folded weight is a recipe in the graph, not a value."""
    x = torch.randn(1, 3, 8, 8)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), trained(nn.BatchNorm2d(4)))
    gm = exported(model, x)
    fold(gm)
    gm.recompile()
    with torch.no_grad():
        model[0].weight.mul_(2)
        model[1].running_var.add_(1)
        assert torch.allclose(gm(x)[0], model.eval()(x), atol=1e-5)


def test_constants_are_what_depends_on_no_input() -> None:
    x = torch.randn(4)
    h = Hand(x)
    w = h.constant(torch.randn(4))
    doubled = h.op(aten.mul.Tensor, w, 2.0)
    steps = h.op(aten.arange.start_step, 0, 4, 1, dtype=torch.int64)
    noise = h.op(aten.rand.default, [4])
    total = h.op(aten.add.Tensor, h.inputs[0], doubled)
    gm = h.done(total, steps, noise)
    assert hoist_constants(gm) == 3
    constants = {n for n in gm.graph.nodes if n.meta.get("constant")}
    assert constants == {w, doubled, steps}
    assert hoist_constants(gm) == 0


def test_parameters_of_another_dtype_are_not_folded() -> None:
    x = torch.randn(1, 3, 8, 8).bfloat16()
    h = Hand(x)
    weight = h.constant(torch.randn(4, 3, 3, 3).bfloat16())
    y = h.op(aten.conv2d.default, h.inputs[0], weight)
    norm = h.op(
        aten.batch_norm.default,
        y,
        *[h.constant(torch.rand(4) + 1) for _ in range(4)],
        False,
        0.1,
        1e-5,
        False,
    )
    gm = h.done(norm)
    assert agree(gm, fold, [x]) == 0
    assert refusals(gm, "fold_batch_norm") == [
        "the parameters of this batch norm are of another dtype"
    ]
