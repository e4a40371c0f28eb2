"""Pass ``fuse_shuffle``: channel shuffles become one copy of channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graph_forms import agree, exported, targets
from torch_aio.graph.fuse_shuffle import fuse_shuffle
from torch_aio.graph.normalise import normalise
from torch_aio.graph.simplify import simplify

TAKE = "aio::take_channels"


class Model(nn.Module):
    """A function of the input and a convolution of it."""

    def __init__(self, function: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, self.conv(x).relu())


def shuffled(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def change(gm: Any) -> int:
    normalise(gm)
    simplify(gm)
    return fuse_shuffle(gm)


def fused(function: Callable[[Tensor, Tensor], Any]) -> tuple[int, list[Any]]:
    x = torch.randn(2, 6, 3, 5)
    gm = exported(Model(function), x)
    return agree(gm, change, [x]), targets(gm)


@pytest.mark.parametrize("groups", [2, 3])
def test_a_shuffle_is_one_copy(groups):
    fired, found = fused(lambda x, y: shuffled(torch.cat([x, y], 1), groups))
    assert fired == 1
    assert TAKE in found
    assert "cat" not in found


def test_halves_of_a_shuffle_are_copies_of_their_own():
    def halves(x: Tensor, y: Tensor) -> Any:
        a, b = shuffled(torch.cat([x, y], 1), 2).chunk(2, 1)
        return a.exp(), b.sin()

    fired, found = fused(halves)
    assert fired == 2
    assert found.count(TAKE) == 2
    assert "slice" not in found


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: shuffled(x + 1, 2),
        lambda x, y: y.view(2, 2, 3, 3, 5).transpose(2, 3).reshape(2, 6, 3, 5),
        lambda x, y: y.view(2, 2, 3, 3, 5).transpose(1, 2).reshape(2, 2, 9, 5),
    ],
    ids=["no convolution", "other dimensions", "another shape"],
)
def test_what_is_no_shuffle_stays(function):
    assert fused(function)[0] == 0
