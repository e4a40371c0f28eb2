"""The torch.compile door on real models and on decoding."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import torch_aio.capture.dynamo as door
from capture_doors import assert_same, compiled, plain_engine


@pytest.fixture
def captured(monkeypatch):
    """The list of captured graphs; they run in plain PyTorch."""
    seen = []
    monkeypatch.setattr(door, "compile_graph", plain_engine(seen))
    monkeypatch.setenv("AIO_STRICT", "1")
    torch.compiler.reset()
    return seen


def _bert(attention):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        attn_implementation=attention,
    )
    return transformers.BertModel(config).eval()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_bert(captured, attention, masked):
    model = _bert(attention)
    function = compiled(model)
    for length in (6, 9):
        ids = torch.randint(0, 50, (2, length))
        mask = torch.ones(2, length, dtype=torch.int64)
        mask[0, 4:] = 0
        kwargs = {"attention_mask": mask} if masked else {}
        ours, theirs = function(ids, **kwargs), model(ids, **kwargs)
        assert_same(ours.last_hidden_state, theirs.last_hidden_state)
        assert_same(ours.pooler_output, theirs.pooler_output)
    targets = {str(n.target) for n in captured[0].module.graph.nodes}
    assert "aten.linear.default" in targets
    whole = {"sdpa": "aten.scaled_dot_product_attention.default", "eager": "aten.softmax.int"}
    assert whole[attention] in targets
    names = {n.meta["name"] for n in captured[0].module.graph.find_nodes(op="get_attr")}
    assert "encoder.layer.0.attention.self.query.weight" in names


@torch.no_grad()
def test_resnet18(captured):
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.resnet18(num_classes=10).eval()
    x = torch.randn(1, 3, 64, 64)
    assert_same(compiled(model)(x), model(x))
    (capture,) = captured
    assert len(capture.arguments) == 1
    assert len(capture.live) == 20 * 5 + 2  # 20 convolutions with batch norm, one linear
    assert capture.module.graph.find_nodes(
        op="call_function", target=torch.ops.aten._native_batch_norm_legit_no_training.default
    )


class Decoder(nn.Module):
    """One attention layer with a key-value cache that grows, or that is written in place."""

    def __init__(self, length=16):
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.register_buffer("keys", torch.zeros(1, length, 8), persistent=False)
        self.register_buffer("values", torch.zeros(1, length, 8), persistent=False)

    def grow(self, x, keys, values):
        q, k, v = self.qkv(x).chunk(3, -1)
        keys, values = torch.cat([keys, k], 1), torch.cat([values, v], 1)
        answer = nn.functional.scaled_dot_product_attention(q, keys, values)
        return answer, keys, values

    def static(self, x, position):
        q, k, v = self.qkv(x).chunk(3, -1)
        self.keys.index_copy_(1, position, k)
        self.values.index_copy_(1, position, v)
        mask = torch.arange(self.keys.shape[1]) <= position
        return nn.functional.scaled_dot_product_attention(
            q, self.keys, self.values, mask[None, None]
        )


@torch.no_grad()
def test_a_growing_cache_is_captured_at_most_twice(captured):
    model = Decoder().eval()
    function = compiled(model.grow)
    ours = theirs = (torch.randn(1, 2, 8), torch.randn(1, 2, 8))
    for _ in range(12):
        x = torch.randn(1, 1, 8)
        a, *ours = function(x, *ours)
        b, *theirs = model.grow(x, *theirs)
        assert_same([a, *ours], [b, *theirs])
    assert len(captured) <= 2


@torch.no_grad()
def test_a_static_cache_is_written_once(captured):
    ours = Decoder().eval()
    theirs = copy.deepcopy(ours)
    function = compiled(ours.static)
    for i in range(5):
        x = torch.randn(1, 1, 8)
        assert_same(function(x, torch.tensor([i])), theirs.static(x, torch.tensor([i])))
        assert_same([ours.keys, ours.values], [theirs.keys, theirs.values])
    (capture,) = captured
    copies = capture.module.graph.find_nodes(
        op="call_function", target=torch.ops.aten.copy_.default
    )
    assert len(copies) == 2
    assert list(capture.module.graph.nodes)[-3:-1] == copies
    assert len(capture.live) == 2
