"""Whole models, small: what the passes leave of them, through every front door."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from graph_doors import calls, operators, through

torchvision = pytest.importorskip("torchvision")
transformers = pytest.importorskip("transformers")

PLAIN = {
    *("conv2d", "linear", "matmul", "scaled_dot_product_attention", "layer_norm", "softmax"),
    *("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "embedding", "gather", "index", "cat"),
    *("add", "mul", "sub", "div", "relu", "gelu", "tanh", "hardtanh", "where", "bitwise_and"),
    *("_to_copy", "view", "transpose", "permute", "select", "slice", "unsqueeze", "expand"),
    "aio::attention",
}


def image(batch: int = 1, size: int = 64) -> tuple[torch.Tensor, ...]:
    return (torch.randn(batch, 3, size, size),)


def vision(name: str) -> nn.Module:
    return getattr(torchvision.models, name)(num_classes=10)


def vit() -> nn.Module:
    return torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=10)


def bert(attention: str) -> nn.Module:
    config = transformers.BertConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        return_dict=False,
    )
    config._attn_implementation = attention
    return transformers.BertModel(config)


def text(*, mask: bool) -> tuple[torch.Tensor, ...]:
    ids = torch.randint(0, 100, (2, 16))
    keep = torch.ones_like(ids)
    keep[1, 10:] = 0
    return (ids, keep) if mask else (ids,)


@pytest.mark.parametrize("door", ["compile", "trace", "script", "export"])
@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "mobilenet_v2"])
def test_a_convolutional_network_keeps_only_convolutions(name: str, door: str) -> None:
    gm = through(door, vision(name), *image())
    assert operators(gm) <= PLAIN - {"mul"}
    assert not calls(gm, "batch_norm")


@pytest.mark.parametrize("door", ["compile", "trace", "script", "export"])
def test_a_vision_transformer_copies_nothing(door: str) -> None:
    """The copy of the packed projection goes: attention reads it with strides."""
    gm = through(door, vit(), *image(1, 32))
    assert operators(gm) <= PLAIN
    assert len(calls(gm, "scaled_dot_product_attention")) == 2


@pytest.mark.parametrize("door", ["compile", "trace", "export"])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bert_keeps_one_attention_a_layer(attention: str, mask: bool, door: str) -> None:
    gm = through(door, bert(attention), *text(mask=mask))
    assert operators(gm) <= PLAIN
    assert "softmax" not in operators(gm)
    name = "scaled_dot_product_attention" if attention == "sdpa" else "aio.attention"
    assert len(calls(gm, name)) == 2
    if not mask:
        assert all(n.args[3] is None for n in calls(gm, name))


@pytest.mark.parametrize("make", [vit, lambda: bert("eager"), lambda: vision("resnet18")])
def test_symbolic_sizes_go_through_all_passes(make: Any) -> None:
    model = make()
    inputs = text(mask=True) if hasattr(model, "embeddings") else image(2, 32)
    gm = through("compile", model, *inputs, dynamic=True)
    assert not calls(gm, "softmax")
    assert not calls(gm, "batch_norm")


def test_a_static_cache_is_updated_in_place() -> None:
    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.key = nn.Linear(8, 8)

        def forward(self, x: Any, cache: Any, position: Any) -> Any:
            cache.index_copy_(1, position, self.key(x))
            return (x @ cache.transpose(1, 2)).softmax(-1) @ cache

    inputs = (torch.randn(1, 1, 8), torch.zeros(1, 16, 8), torch.tensor([3]))
    gm = through("compile", Cached(), *inputs)
    (update,) = calls(gm, "index_copy")
    assert update.meta["reinplace"] in {n.name for n in gm.graph.find_nodes(op="placeholder")}


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_fused_encoder_layer_is_spelled_out(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=norm_first)
    gm = through("compile", layer, torch.randn(2, 10, 32))
    assert operators(gm) <= PLAIN
    assert len(calls(gm, "scaled_dot_product_attention")) == 1


def test_the_fused_attention_is_spelled_out() -> None:
    class Self(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

        def forward(self, x: Any) -> Any:
            return self.attention(x, x, x, need_weights=False)[0]

    gm = through("compile", Self(), torch.randn(2, 10, 32))
    assert operators(gm) <= PLAIN | {"clone"}  # what is returned lies as promised
    assert len(calls(gm, "scaled_dot_product_attention")) == 1
