"""Passes ``fuse_attention``, ``fuse_norm``, ``fuse_activation``: what models spell out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from graph_forms import agree, exported, targets
from torch_aio.graph.fuse_activation import fuse_activation
from torch_aio.graph.fuse_attention import fuse_attention
from torch_aio.graph.fuse_norm import fuse_norm
from torch_aio.graph.normalise import normalise

Function = Callable[..., Any]
MIN = torch.finfo(torch.float32).min


class Model(nn.Module):
    """A function as a module, for torch.export."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function
        self.w = nn.Parameter(torch.rand(16) + 0.5)
        self.b = nn.Parameter(torch.rand(16) + 0.5)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(self, *inputs)


def fuse(pass_: Callable[[GraphModule], int]) -> Callable[[GraphModule], int]:
    def change(gm: GraphModule) -> int:
        normalise(gm)
        return pass_(gm)

    return change


def refusals(gm: GraphModule, name: str) -> list[str]:
    return [n.meta["refused"][name] for n in gm.graph.nodes if name in n.meta.get("refused", {})]


def heads(*shape: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(*(shape or (2, 4, 8, 16))) for _ in range(3)]


def plain(m: nn.Module, q: Any, k: Any, v: Any) -> Any:
    return (q @ k.transpose(-2, -1) / 4.0).softmax(-1) @ v


def scaled(m: nn.Module, q: Any, k: Any, v: Any) -> Any:
    weights = torch.matmul(q, k.transpose(2, 3)) * 16**-0.5
    return torch.matmul(nn.functional.softmax(weights, -1, torch.float32), v)


def key_transposed(m: nn.Module, q: Any, k: Any, v: Any) -> Any:
    return torch.softmax(torch.matmul(q, k.reshape(2, 4, 16, 8)), -1) @ v


def masked(m: nn.Module, q: Any, k: Any, v: Any, mask: Any) -> Any:
    return (q @ k.transpose(-2, -1) * 0.25 + mask).softmax(-1) @ v


def filled(m: nn.Module, q: Any, k: Any, v: Any, mask: Any) -> Any:
    return (q @ k.transpose(-2, -1) * 0.25).masked_fill(mask > 0, MIN).softmax(-1) @ v


def chosen(m: nn.Module, q: Any, k: Any, v: Any, mask: Any) -> Any:
    scores = q @ k.transpose(-2, -1) / 4
    return torch.where(mask > 0, scores, torch.tensor(-math.inf)).softmax(-1) @ v


def batched(m: nn.Module, q: Any, k: Any, v: Any) -> Any:
    return torch.bmm(torch.bmm(q * 0.5, k.transpose(1, 2)).softmax(-1), v)


def mask_of(*shape: int) -> torch.Tensor:
    mask = torch.zeros(shape)
    mask[..., 5:] = MIN
    mask[..., 1, :] = -math.inf  # a fully masked row
    return mask


ATTENTION: list[tuple[Function, list[torch.Tensor]]] = [
    (plain, heads()),
    (scaled, heads()),
    (key_transposed, heads()),
    (masked, [*heads(), mask_of(2, 1, 8, 8)]),
    (masked, [*heads(), mask_of(8, 8)]),
    (filled, [*heads(), torch.rand(2, 1, 8, 8) - 0.5]),
    (chosen, [*heads(), torch.rand(2, 4, 8, 8) - 0.9]),
    (batched, heads(6, 8, 16)),
]


@pytest.mark.parametrize("case", range(len(ATTENTION)))
def test_attention_becomes_one_operator(case: int) -> None:
    """With eager's answer: a row of scores that are all -inf is NaN."""
    function, inputs = ATTENTION[case]
    gm = exported(Model(function), *inputs)
    assert agree(gm, fuse(fuse_attention), inputs) == 1
    assert "matmul" not in targets(gm)
    assert any("attention" in str(n.target) for n in gm.graph.nodes)


def test_a_nan_in_the_query_stays_in_its_row() -> None:
    q, k, v = heads()
    q[0, 0, 2, 3] = math.nan
    q[0, 1, 4, 3] = -math.inf
    gm = exported(Model(plain), q, k, v)
    assert agree(gm, fuse(fuse_attention), [q, k, v]) == 1


def weights_too(m: nn.Module, q: Any, k: Any, v: Any) -> Any:
    weights = (q @ k.transpose(-2, -1)).softmax(-1)
    return weights @ v, weights


def scores_too(m: nn.Module, q: Any, k: Any, v: Any) -> Any:
    scores = q @ k.transpose(-2, -1)
    return scores.softmax(-1) @ v, scores


def wrong_axis(m: nn.Module, q: Any, k: Any, v: Any) -> Any:
    return (q @ k.transpose(-2, -1)).softmax(-2) @ v


def not_a_product(m: nn.Module, q: Any, k: Any, v: Any) -> Any:
    return torch.exp(q @ k.transpose(-2, -1)).softmax(-1) @ v


REFUSED: list[tuple[Function, str]] = [
    (weights_too, "the attention weights are read by others too"),
    (scores_too, "the attention scores are read by others too"),
    (wrong_axis, "the softmax is not over the last dimension"),
    (not_a_product, "the softmax is not over a product of queries and keys"),
]


@pytest.mark.parametrize(("function", "reason"), REFUSED)
def test_other_attention_is_refused_by_sentence(function: Function, reason: str) -> None:
    inputs = heads()
    gm = exported(Model(function), *inputs)
    assert agree(gm, fuse(fuse_attention), inputs) == 0
    assert refusals(gm, "fuse_attention") == [reason]


def layer_norm(m: nn.Module, x: Any) -> Any:
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).pow(2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5) * m.w + m.b


def layer_norm_rsqrt(m: nn.Module, x: Any) -> Any:
    centred = x - x.mean(-1, keepdim=True)
    return m.w * (centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + 1e-5)) + m.b


def layer_norm_var(m: nn.Module, x: Any) -> Any:
    variance = x.var(-1, keepdim=True, unbiased=False)
    return (x - x.mean(-1, keepdim=True)) / torch.sqrt(variance + 1e-5)


def rms_norm(m: nn.Module, x: Any) -> Any:
    hidden = x.to(torch.float32)
    hidden = hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + 1e-6)
    return m.w * hidden.to(x.dtype)


NORMS: list[tuple[Function, list[str]]] = [
    (layer_norm, ["layer_norm"]),
    (layer_norm_rsqrt, ["layer_norm"]),
    (layer_norm_var, ["layer_norm"]),
    (rms_norm, ["rms_norm"]),
]


@pytest.mark.parametrize(("function", "expected"), NORMS)
def test_a_norm_becomes_one_operator(function: Function, expected: list[str]) -> None:
    x = torch.randn(2, 5, 16)
    gm = exported(Model(function), x)
    assert agree(gm, fuse(both), [x]) == 1
    assert targets(gm) == expected


def both(gm: GraphModule) -> int:
    from torch_aio.graph.simplify import simplify

    simplify(gm)
    return fuse_norm(gm)


def test_an_unbiased_variance_is_no_layer_norm() -> None:
    def unbiased(m: nn.Module, x: Any) -> Any:
        return (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True) + 1e-5)

    x = torch.randn(2, 5, 16)
    gm = exported(Model(unbiased), x)
    assert agree(gm, fuse(both), [x]) == 0


def gelu(m: nn.Module, x: Any) -> Any:
    return x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))


def gelu_half_last(m: nn.Module, x: Any) -> Any:
    return (x * (torch.erf(x * 0.7071067811865476) + 1.0)) / 2


def gelu_new(m: nn.Module, x: Any) -> Any:
    inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))
    return 0.5 * x * (1.0 + torch.tanh(inner))


def gelu_fast(m: nn.Module, x: Any) -> Any:
    return 0.5 * x * (1.0 + torch.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x)))


def silu(m: nn.Module, x: Any) -> Any:
    return x * torch.sigmoid(x)


def hardswish(m: nn.Module, x: Any) -> Any:
    return x * nn.functional.relu6(x + 3.0) / 6.0


def hardswish_gate(m: nn.Module, x: Any) -> Any:
    return nn.functional.hardsigmoid(x) * x


ACTIVATIONS: list[tuple[Function, str]] = [
    (gelu, "gelu"),
    (gelu_half_last, "gelu"),
    (gelu_new, "gelu"),
    (gelu_fast, "gelu"),
    (silu, "silu"),
    (hardswish, "hardswish"),
    (hardswish_gate, "hardswish"),
]


@pytest.mark.parametrize(("function", "expected"), ACTIVATIONS)
def test_an_activation_becomes_one_operator(function: Function, expected: str) -> None:
    x = torch.cat([torch.randn(60), torch.tensor([0.0, -0.0, math.nan, 1e20])])
    gm = exported(Model(function), x)
    assert agree(gm, fuse(fuse_activation), [x]) == 1
    assert targets(gm) == [expected]


def test_a_gate_of_something_else_stays() -> None:
    def glu(m: nn.Module, x: Any, y: Any) -> Any:
        return x * torch.sigmoid(y)

    inputs = [torch.randn(4), torch.randn(4)]
    gm = exported(Model(glu), *inputs)
    assert agree(gm, fuse(fuse_activation), inputs) == 0
