"""Captured graphs run in plain PyTorch: what tests of the front doors share."""

from __future__ import annotations

import torch
from torch import nn

from torch_aio.capture.dynamo import backend


def plain_engine(seen):
    """A compile_graph that runs the graph as it is, weights taken from the call."""

    def compile_graph(capture, options):
        seen.append(capture)

        def run(*args):
            assert not torch.is_grad_enabled()
            carriers = capture.carriers(args)
            for name, position in capture.live.items():
                setattr(capture.module, name, carriers[position])
            return tuple(capture.module(*(args[i] for i in capture.arguments)))

        return run

    return compile_graph


def compiled(target, **kwargs):
    return torch.compile(target, backend=backend, **kwargs)


def assert_same(ours, theirs):
    assert type(ours) is type(theirs)
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs)
        assert ours.dtype == theirs.dtype
        assert ours.stride() == theirs.stride()
        assert ours.requires_grad == theirs.requires_grad
    elif isinstance(ours, dict):
        assert_same(list(ours.items()), list(theirs.items()))
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b)
    else:
        assert ours == theirs


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.plain = torch.zeros(2)

    def forward(self, x):
        self.count += 1
        self.plain.add_(x.mean())
        return x * self.count


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.layers = nn.Sequential(nn.Linear(8, 8), nn.GELU())
        self.register_buffer("scale", torch.full((8,), 2.0))

    def forward(self, x):
        return x + self.layers(self.norm(x)) * self.scale
