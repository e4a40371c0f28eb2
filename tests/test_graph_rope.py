"""Pass ``fuse_rope``, and ``aio.rope`` spelled in tables: one rotation, tables shared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule

from graph_forms import Of, agree, exported, targets
from torch_aio.graph.fuse_rope import fuse_rope
from torch_aio.graph.normalise import normalise
from torch_aio.graph.simplify import simplify

Function = Callable[..., Any]


def fused(gm: GraphModule) -> int:
    normalise(gm)
    return fuse_rope(gm)


def rotate_half(x: Tensor) -> Tensor:
    a, b = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return torch.cat((-b, a), -1)


def llama(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x * cos + rotate_half(x) * sin


def turned_about(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return sin * torch.cat([-b, a], 3) + cos * x


def by_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    cos, sin = cos[..., :8], sin[..., :8]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def transposed(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return llama(x.transpose(1, 2), cos.transpose(1, 2), sin.transpose(1, 2))


def partial(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    x = torch.cat((x, x), -1)
    return torch.cat((llama(x[..., 16:], cos, sin), x[..., :16]), -1)


def operands() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 3, 5, 16), torch.randn(2, 1, 5, 16), torch.randn(2, 1, 5, 16)]


@pytest.mark.parametrize("function", [llama, turned_about, by_halves, transposed, partial])
def test_a_rotation_becomes_one_operator(function: Function) -> None:
    inputs = operands()
    gm = exported(Of(function), *inputs)
    assert agree(gm, fused, inputs) == 1
    found = targets(gm)
    assert "aio::rotate" in found
    assert not {"neg", "mul"} & set(found)


def other_direction(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((b, -a), -1) * sin


def neighbours(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x[..., ::2], x[..., 1::2]
    return x * cos + torch.stack((-b, a), -1).flatten(-2) * sin


def other_source(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return (x + 1) * cos + rotate_half(x) * sin


def swapped_tables(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    cos, sin = cos[..., :8], sin[..., :8]
    return torch.cat((a * cos - b * sin, b * sin + a * cos), -1)


def uneven(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x * cos + torch.cat((-x[..., 6:], x[..., :6]), -1) * sin


@pytest.mark.parametrize(
    "function", [other_direction, neighbours, other_source, swapped_tables, uneven]
)
def test_what_looks_like_a_rotation_stays(function: Function) -> None:
    inputs = operands()
    gm = exported(Of(function), *inputs)
    assert agree(gm, fused, inputs) == 0


ENLARGED = "the tables of cosines and sines enlarge what they turn"
OTHER_DTYPE = "the rotation is not computed in the dtype of its input"
OTHER_WIDTH = "the tables of cosines and sines are not of one width"


@pytest.mark.parametrize(
    ("cos", "sin", "reason"),
    [
        (torch.randn(4, 1, 1, 5, 16), torch.randn(5, 16), ENLARGED),
        (torch.randn(5, 16).double(), torch.randn(5, 16), OTHER_DTYPE),
        (torch.randn(5, 1), torch.randn(5, 16), OTHER_WIDTH),
    ],
)
def test_a_refusal_is_a_sentence(cos: Tensor, sin: Tensor, reason: str) -> None:
    inputs = [torch.randn(2, 3, 5, 16), cos, sin]
    gm = exported(Of(llama), *inputs)
    assert agree(gm, fused, inputs) == 0
    refused = [n.meta["refused"]["fuse_rope"] for n in gm.graph.nodes if "refused" in n.meta]
    assert refused == [reason]


def test_queries_and_keys_share_their_tables() -> None:
    """Also of another count of heads; the spelling is that of the operator's own definition."""

    def both(q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        rope = torch.ops.aio.rope
        return rope(q, positions, 10000.0), rope(k, positions, 10000)

    inputs = [torch.randn(2, 4, 5, 16), torch.randn(2, 2, 5, 16), torch.randint(0, 99, (2, 5))]
    gm = exported(Of(both), *inputs)

    def change(gm: GraphModule) -> int:
        return normalise(gm) + simplify(gm)

    agree(gm, change, inputs)
    found = targets(gm)
    assert found.count("aio::rotate") == 2
    assert found.count("sin") == 1
