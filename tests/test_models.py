"""Whole models through every front door: one network, nothing left to ATen, right answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torch_aio
from accuracy import assert_close, reference, run

torchvision = pytest.importorskip("torchvision")
transformers = pytest.importorskip("transformers")

Case = tuple[nn.Module, tuple[Tensor, ...]]


class Text(nn.Module):
    """BERT as a function of positional tensors, returning tensors."""

    def __init__(self, attention: str) -> None:
        super().__init__()
        config = transformers.BertConfig(
            hidden_size=96, num_attention_heads=4, intermediate_size=200, num_hidden_layers=2,
            vocab_size=100, attn_implementation=attention,
        )  # fmt: skip
        self.bert = transformers.BertModel(config)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        out = self.bert(ids, attention_mask=mask)
        return out.last_hidden_state, out.pooler_output


class Causal(nn.Module):
    """GPT-2 without a cache, as a function of tensors."""

    def __init__(self) -> None:
        super().__init__()
        config = transformers.GPT2Config(
            n_embd=96, n_head=4, n_layer=2, vocab_size=100, n_positions=64, use_cache=False
        )
        self.gpt = transformers.GPT2LMHeadModel(config)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.gpt(ids).logits
        return logits


class Llama(nn.Module):
    """A Llama with grouped heads, as a function of tensors; positions are its own or given."""

    def __init__(self) -> None:
        super().__init__()
        config = transformers.LlamaConfig(
            vocab_size=97, hidden_size=64, intermediate_size=112, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
            use_cache=False,
        )  # fmt: skip
        self.llama = transformers.LlamaForCausalLM(config)

    def forward(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        logits: Tensor = self.llama(ids, position_ids=positions).logits
        return logits


def llama(*positions: Tensor) -> Case:
    return Llama().eval(), (torch.randint(0, 97, (2, 33)), *positions)


def picture(model: nn.Module, size: int) -> Case:
    """A vision model whose batch norms and last layer are not trivial."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.05)
    return model.eval(), (torch.randn(1, 3, size, size),)


def text(attention: str, masked: bool) -> Case:
    """A small BERT on 33 tokens, the last 8 padding where ``masked``."""
    ids = torch.randint(0, 100, (2, 33))
    mask = torch.ones_like(ids)
    mask[:, 25:] = 0
    return Text(attention).eval(), (ids, mask) if masked else (ids,)


def vision_transformer() -> Case:
    model = torchvision.models.VisionTransformer(
        image_size=64, patch_size=16, num_layers=2, num_heads=4, hidden_dim=96, mlp_dim=200
    )
    return picture(model, 64)


MODELS: dict[str, Callable[[], Case]] = {
    "resnet50": lambda: picture(torchvision.models.resnet50(), 64),
    "vgg16": lambda: picture(torchvision.models.vgg16(), 32),
    "mobilenet_v2": lambda: picture(torchvision.models.mobilenet_v2(), 64),
    "vit": vision_transformer,
    "bert_sdpa": lambda: text("sdpa", masked=False),
    "bert_sdpa_mask": lambda: text("sdpa", masked=True),
    "bert_eager": lambda: text("eager", masked=False),
    "bert_eager_mask": lambda: text("eager", masked=True),
    "gpt2": lambda: (Causal().eval(), (torch.randint(0, 100, (2, 33)),)),
    "llama": llama,
    "llama_positions": lambda: llama(torch.arange(7, 40).expand(2, 33)),
}


def frozen(model: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    return torch.jit.freeze(torch.jit.trace(model, inputs, strict=False))


DOORS: dict[str, Callable[[nn.Module, tuple[Tensor, ...]], Any]] = {
    "compile": lambda model, _: torch.compile(model, backend="aio"),
    "freeze": frozen,
    "export": torch_aio.compile,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", MODELS)
def test_model(name: str, door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One network runs every node, twice the same, as near to fp64 as eager is."""
    monkeypatch.setenv("AIO_STRICT", "1")
    torch.compiler.reset()
    model, inputs = MODELS[name]()
    with torch.no_grad():
        compiled = DOORS[door](model, inputs)
        first, second = compiled(*inputs), compiled(*inputs)
        assert_close(first, reference(model, *inputs), run(model, inputs), f"{name} {door}")
        assert_close(second, first, second, "second call")
        explanation = torch_aio.explain(compiled, *inputs)
    views = {"view", "select", "slice", "transpose", "reshape"}
    left = [line for line in explanation.left_to_aten if line.op.split(".")[0] not in views]
    assert not left, str(explanation)
    assert explanation.networks == 1, str(explanation)
    assert explanation.flops == 1
