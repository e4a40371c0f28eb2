"""Decoding token by token: a length that grows 200 times costs one re-capture and few kernels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from accuracy import assert_close, run, widened
from torch_aio.capture import compat
from torch_aio.capture.torchscript import runner_of
from torch_aio.engine.compiled import observed
from torch_aio.graph.cut import OUTSIDE
from torch_aio.runtime.machine import machine

WIDTH, HEADS, LONGEST = 32, 2, 256


class Growing(nn.Module):
    """Attention over a cache of keys and values that grows by concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.width = HEADS, WIDTH // HEADS
        self.norm = nn.LayerNorm(WIDTH)
        self.packed = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values: (batch, heads, 1, width of a head)."""
        parts = self.packed(self.norm(x)).view(x.size(0), x.size(1), 3, self.heads, self.width)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def join(self, x: Tensor, context: Tensor) -> Tensor:
        """The rest of a decoder layer."""
        x = x + self.out(context.transpose(1, 2).flatten(2))
        return x + self.mlp(x)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.split(x)
        keys, values = torch.cat([keys, k], 2), torch.cat([values, v], 2)
        context = F.scaled_dot_product_attention(q, keys, values)
        return self.join(x, context), keys, values


class Static(Growing):
    """The same over a cache of fixed size, written in place, masked past the position."""

    def forward(self, x: Tensor, position: Tensor, keys: Tensor, values: Tensor) -> Tensor:  # type: ignore[override]
        q, k, v = self.split(x)
        keys.index_copy_(2, position, k)
        values.index_copy_(2, position, v)
        mask = (torch.arange(keys.size(2)) <= position).unsqueeze(0)
        context = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        return self.join(x, context)


@dataclass
class Door:
    """A compiled model and how many graphs its front door captured."""

    run: Any
    captures: Callable[[], int]


def compiled(model: nn.Module) -> Door:
    torch.compiler.reset()
    run = torch.compile(model, backend="aio")
    return Door(run, lambda: int(compat.counters["aio"]["compiled"]))


def frozen(model: nn.Module) -> Door:
    run = torch.jit.freeze(torch.jit.script(model))
    return Door(run, lambda: int(runner_of(run).captures))


DOORS = {"compile": compiled, "freeze": frozen}


def kernels() -> int:
    """Kernels that this process has compiled or loaded."""
    host = machine()
    assert host is not None
    return host.jit.compiled + host.jit.loaded


@pytest.fixture(autouse=True)
def _strict(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AIO_STRICT", "1")
    with torch.no_grad():
        yield


def cache(length: int) -> Tensor:
    return torch.randn(1, HEADS, length, WIDTH // HEADS)


@pytest.mark.parametrize("door", DOORS)
def test_a_growing_cache(door: str) -> None:
    model = Growing().eval()
    wide = copy.deepcopy(model).double()
    compiled = DOORS[door](model)
    keys, values = cache(3), cache(3)
    made = []
    with observed() as graphs:
        for step in range(200):
            x = torch.randn(1, 1, WIDTH)
            ours = compiled.run(x, keys, values)
            assert_close(ours, exact(wide, x, keys, values), model(x, keys, values), f"{step}")
            keys, values = ours[1:]
            made.append(kernels())
        assert keys.shape[2] == 203
        assert compiled.captures() <= 2
        assert made[9] == made[-1], "a kernel was compiled after the first ten lengths"
        for length in (0, 1):
            x, keys, values = torch.randn(1, 1, WIDTH), cache(length), cache(length)
            ours = compiled.run(x, keys, values)
            assert_close(ours, exact(wide, x, keys, values), model(x, keys, values), door)
        assert compiled.captures() <= 4
    for graph in graphs:
        assert len(graph.variants) <= 2
        for variant in graph.variants:
            left = [n for n in variant.gm.graph.nodes if is_left(n)]
            assert len(variant.networks) == 1
            assert not left, left


def exact(wide: nn.Module, *inputs: Tensor) -> Any:
    """The answer of the model in fp64."""
    return run(wide, [widened(x) for x in inputs])


def is_left(node: Any) -> bool:
    """Whether PyTorch runs a node, views of results aside."""
    verdict = node.meta.get("verdict")
    return verdict is not None and verdict.kind == "aten" and verdict != OUTSIDE


@pytest.mark.parametrize("door", DOORS)
def test_a_static_cache(door: str) -> None:
    """The caller's cache is written once, in place, by one captured graph."""
    model = Static().eval()
    wide = copy.deepcopy(model).double()
    compiled = DOORS[door](model)
    keys, values = cache(LONGEST) * 0, cache(LONGEST) * 0
    address = keys.data_ptr()
    made = []
    for step in range(60):
        x, position = torch.randn(1, 1, WIDTH), torch.tensor([step])
        given = keys.clone(), values.clone()
        plain = keys.clone(), values.clone()
        ours = compiled.run(x, position, keys, values)
        eager, doubled = model(x, position, *plain), [widened(t) for t in given]
        assert_close(ours, wide(x.double(), position, *doubled), eager, f"token {step}")
        assert_close((keys, values), doubled, plain, f"cache {step}")
        made.append(kernels())
    assert keys.data_ptr() == address
    assert keys[:, :, 60:].count_nonzero() == 0
    assert compiled.captures() == 1
    assert made[0] == made[-1]


@pytest.mark.parametrize("door", DOORS)
def test_a_prompt_and_then_tokens(door: str) -> None:
    """The prompt has many rows, each token one: a capture each, whatever their lengths."""
    model = Growing().eval()
    wide = copy.deepcopy(model).double()
    compiled = DOORS[door](model)
    for length in (7, 12, 33):
        x, keys, values = torch.randn(1, length, WIDTH), cache(2), cache(2)
        for _ in range(5):
            ours = compiled.run(x, keys, values)
            assert_close(ours, exact(wide, x, keys, values), model(x, keys, values), door)
            keys, values, x = *ours[1:], torch.randn(1, 1, WIDTH)
    assert compiled.captures() <= 4
