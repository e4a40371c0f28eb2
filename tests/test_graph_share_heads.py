"""Pass ``share_heads``: keys and values that models repeat for grouped heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.nn import functional as F

from graph_forms import Of, agree, exported, targets
from torch_aio.graph.normalise import normalise
from torch_aio.graph.share_heads import share_heads
from torch_aio.graph.simplify import simplify

Function = Callable[..., Any]


def shared(gm: GraphModule) -> int:
    normalise(gm)
    simplify(gm)
    return share_heads(gm)


def repeated(x: Tensor, times: int) -> Tensor:
    batch, heads, length, width = x.shape
    x = x[:, :, None, :, :].expand(batch, heads, times, length, width)
    return x.reshape(batch, heads * times, length, width)


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, repeated(k, 3), repeated(v, 3), is_causal=True)


def masked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    mask = q[..., :1] > 0.1
    mask = mask | torch.eye(5, dtype=torch.bool)
    return F.scaled_dot_product_attention(q, repeated(k, 3), repeated(v, 3), mask, scale=0.3)


def operands() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 6, 5, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)]


@pytest.mark.parametrize("function", [plain, masked])
def test_repeated_heads_are_read_where_they_are(function: Function) -> None:
    inputs = operands()
    gm = exported(Of(function), *inputs)
    assert agree(gm, shared, inputs) == 1
    assert not {"expand", "reshape", "view"} & set(targets(gm))


def cycled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    k, v = (x[:, None].expand(2, 3, 2, 5, 8).reshape(2, 6, 5, 8) for x in (k, v))
    return F.scaled_dot_product_attention(q, k, v)


def longer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    k, v = (x[:, :, None].expand(2, 2, 3, 5, 8).reshape(2, 2, 15, 8) for x in (k, v))
    return F.scaled_dot_product_attention(q[:, :2], k, v)


@pytest.mark.parametrize("function", [cycled, longer])
def test_another_order_stays(function: Function) -> None:
    inputs = operands()
    gm = exported(Of(function), *inputs)
    assert agree(gm, shared, inputs) == 0


def test_keys_alone_are_refused_by_sentence() -> None:
    def keys(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, repeated(k, 3), v)

    q, k, _ = operands()
    gm = exported(Of(keys), q, k, torch.randn(2, 6, 5, 8))
    assert agree(gm, shared, [q, k, torch.randn(2, 6, 5, 8)]) == 0
    refused = [n.meta["refused"]["share_heads"] for n in gm.graph.nodes if "refused" in n.meta]
    assert refused == ["keys and values are not repeated alike"]
