"""A tiny CNN and a tiny transformer through the front doors, small enough for the emulator."""

from __future__ import annotations

import warnings
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import torch_aio
from accuracy import assert_close, reference


class Bottleneck(nn.Module):
    """1x1, 3x3 in groups or depthwise, 1x1; batch norm, ReLU6, residual."""

    def __init__(self, channels, hidden, groups):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=groups, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x):
        return F.relu(x + self.body(x))


class TinyCnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.Sequential(Bottleneck(12, 16, 1), Bottleneck(12, 24, 24))
        self.head = nn.Linear(12, 10)

    def forward(self, x):
        x = self.blocks(self.pool(F.relu(self.stem(x))))
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return F.softmax(self.head(x), dim=-1)


class TinyTransformer(nn.Module):
    """Embeddings, one layer of masked attention and a feed-forward net, a mean over the tokens."""

    def __init__(self, width=24, heads=2):
        super().__init__()
        self.words, self.places = nn.Embedding(50, width), nn.Embedding(16, width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 40), nn.Linear(40, width)
        self.heads = heads

    def forward(self, tokens, mask):
        batch, length = tokens.shape
        x = self.words(tokens) + self.places(torch.arange(length))
        split = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = split.unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        x = self.first(x + self.out(y.transpose(1, 2).reshape(batch, length, -1)))
        x = self.second(x + self.down(F.gelu(self.up(x))))
        weight = mask.unsqueeze(-1).to(x.dtype)
        return (x * weight).sum(1) / weight.sum(1)


def cnn():
    model = TinyCnn()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval(), (torch.randn(2, 3, 21, 18),)


def transformer():
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 5:] = False
    return TinyTransformer().eval(), (torch.randint(0, 50, (2, 7)), mask)


DOORS = {
    "compile": lambda model, _inputs: torch.compile(model, backend="aio"),
    "freeze": lambda model, inputs: torch.jit.freeze(torch.jit.trace(model, inputs)),
    "script": lambda model, _inputs: torch.jit.freeze(torch.jit.script(model)),
    "export": torch_aio.compile,
}


@cache
def opened(make, door):
    """The model behind a door (once for both tests: compiling is slow in the emulator)."""
    torch.manual_seed(0)
    model, inputs = make()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model, inputs, DOORS[door](model, inputs)


def over_all(test):
    """The test with each model through each door."""
    models = pytest.mark.parametrize("make", [cnn, transformer], ids=lambda make: make.__name__)
    return pytest.mark.filterwarnings("ignore")(
        pytest.mark.parametrize("door", DOORS)(models(test))
    )


@pytest.fixture(autouse=True)
def _strict(monkeypatch):
    monkeypatch.setenv("AIO_STRICT", "1")


@over_all
def test_a_tiny_model_answers_as_eager_does(make, door):
    """Near to fp64 as eager is, at the first call and at later ones."""
    model, inputs, run = opened(make, door)
    with torch.no_grad():
        eager, exact = model(*inputs), reference(model, *inputs)
        for _ in range(3):
            assert_close(run(*inputs), exact, eager, door)


@over_all
def test_a_tiny_model_runs_on_our_kernels(make, door):
    """At least 95 % of its nodes are not left to PyTorch."""
    _, inputs, run = opened(make, door)
    table = torch_aio.explain(run, *inputs)
    assert not table.failures
    assert table.lines
    assert table.nodes >= 0.95, [line.detail for line in table.left_to_aten]
