"""Matrix products and attention, compiled: ranks, broadcasts, strides, epilogues, masks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import torch_aio
from accuracy import assert_close
from torch_aio.engine.compiled import observed

r = torch.randn
attention = functional.scaled_dot_product_attention


class Function(nn.Module):
    """A function of tensors and (named, constant) parameters w and b."""

    def __init__(self, function, w=None, b=None):
        super().__init__()
        self.function = function
        for name, value in (("w", w), ("b", b)):
            self.register_buffer(name, value)

    def forward(self, *inputs):
        constants = [c for c in (self.w, self.b) if c is not None]
        return self.function(*inputs, *constants)


def linear(x, w, b=None):
    return functional.linear(x, w, b)


PRODUCTS = {
    "linear": (linear, (r(2, 5, 33),), r(48, 33), r(48)),
    "relu and residual": (lambda x, y, w, b: linear(x, w, b).relu() + y, (r(2, 9, 33), r(2, 9, 64)),
                          r(64, 33), r(64)),
    "gelu": (lambda x, w, b: functional.gelu(linear(x, w, b)), (r(1, 40, 300),), r(96, 300) / 17,
             r(96)),
    "an operand a batch": (lambda x, y, w: linear(x, w) * y, (r(2, 9, 33), r(2, 1, 64)), r(64, 33)),
    "an operand a row": (lambda x, y, w: linear(x, w) * y, (r(2, 9, 33), r(2, 9, 1)), r(64, 33)),
    "transposed residual": (lambda x, y, w: linear(x, w) + y.t(), (r(8, 4), r(6, 8)), r(6, 4)),
    "a comparison": (lambda x, w: linear(x, w) > 0, (r(8, 4),), r(6, 4)),
    "one row": (linear, (r(1, 33),), r(48, 33), r(48)),
    "three rows": (lambda x, w, b: linear(x, w, b) * 2, (r(3, 33),), r(48, 33), r(48)),
    "a vector": (linear, (r(33),), r(48, 33), r(48)),
    "many terms": (linear, (r(40, 3000),), r(70, 3000) / 50, r(70)),
    "strided terms": (lambda x, w: linear(x.transpose(1, 2), w), (r(2, 7, 11),), r(48, 7)),
    "right constant": (torch.matmul, (r(3, 7, 48),), r(48, 17)),
    "right constant, two rows": (torch.matmul, (r(2, 48),), r(48, 17)),
    "right constant in batches": (torch.matmul, (r(3, 7, 48),), r(3, 48, 17)),
    "left constant": (lambda x, w: w @ x, (r(3, 48, 7),), r(17, 48)),
    "batches": (torch.matmul, (r(3, 7, 48), r(3, 48, 9))),
    "broadcast batches": (torch.matmul, (r(2, 3, 7, 48), r(3, 48, 9))),
    "crossed batches": (torch.matmul, (r(3, 1, 7, 48), r(1, 4, 48, 9))),
    "batches that need copies": (torch.matmul, (r(2, 1, 3, 1, 7, 8), r(1, 4, 1, 2, 8, 9))),
    "one right matrix": (torch.matmul, (r(2, 3, 7, 48), r(48, 9))),
    "scores": (lambda q, k: q.transpose(1, 2) @ k.permute(0, 2, 3, 1) / 8 + 1,
               (r(2, 10, 3, 16), r(2, 12, 3, 16))),
    "scores of one row": (lambda q, k: q.transpose(1, 2) @ k.permute(0, 2, 3, 1),
                          (r(2, 1, 3, 16), r(2, 12, 3, 16))),
    "context": (lambda p, v: (p @ v.transpose(1, 2)).transpose(1, 2),
                (r(2, 3, 10, 12), r(2, 12, 3, 16))),
    "matrix and vector": (torch.matmul, (r(7, 48), r(48))),
    "batches and vector": (lambda x, y: (x @ y).relu(), (r(2, 3, 7, 48), r(48))),
    "vector and matrix": (torch.matmul, (r(48), r(48, 9))),
    "vector and batches": (torch.matmul, (r(48), r(5, 48, 9))),
    "two vectors": (torch.matmul, (r(48), r(48))),
    "addmm": (lambda c, x, y: torch.addmm(c, x, y, alpha=0.5, beta=2),
              (r(7, 9), r(7, 48), r(48, 9))),
    "addmm without c": (lambda c, x, y: torch.addmm(c, x, y, beta=0),
                        (r(7, 9) * math.nan, r(7, 48), r(48, 9))),
    "baddbmm": (lambda c, x, y: torch.baddbmm(c, x, y, alpha=0.5),
                (r(3, 7, 9), r(3, 7, 48), r(3, 48, 9))),
    "both transposed": (lambda x, y: torch.bmm(x.mT, y.mT), (r(3, 48, 7), r(3, 9, 48))),
    "one term": (lambda x, y: x @ y + 1, (r(2, 5, 1), r(2, 1, 7))),
    "one column": (lambda x, w, b: linear(x, w, b).sigmoid(), (r(17, 33),), r(1, 33), r(1)),
    "no terms": (torch.matmul, (r(3, 0), r(0, 5))),
    "no rows": (torch.matmul, (r(0, 3), r(3, 5))),
    "every other number": (lambda x, y: x[..., ::2] @ y[..., ::2], (r(3, 7, 48), r(3, 24, 18))),
}  # fmt: skip


def heads(*shape):
    return r(*shape).transpose(1, 2)


Q, K, V = heads(2, 9, 4, 16), heads(2, 11, 4, 16), heads(2, 11, 4, 16)
ADDED = r(2, 1, 9, 11)
ADDED[..., ::3] = ADDED[:, :, 2] = -math.inf
PADDING = torch.arange(11) < torch.tensor([7, 11]).reshape(2, 1, 1, 1)
SEEN = torch.arange(99).reshape(9, 11) % 5 > 1
SEEN[3] = False


def spelled(q, k, v, mask=None, fill=None):
    scores = q @ k.transpose(-1, -2) / 4
    if mask is not None:
        scores = scores + mask if fill is None else scores.masked_fill(~mask, fill)
    return (scores.softmax(-1) @ v).transpose(1, 2).reshape(q.shape[0], q.shape[2], -1)


ATTENTION = {
    "plain": (attention, (Q, K, V)),
    "causal": (lambda *x: attention(*x, is_causal=True), (Q, K, V)),
    "added mask": (attention, (Q, K, V, ADDED)),
    "padding": (attention, (Q, K, V, PADDING)),
    "boolean mask": (attention, (Q, K, V, SEEN)),
    "a column as mask": (attention, (Q, K, V, r(9, 1))),
    "scale": (lambda *x: attention(*x, scale=0.3), (Q, K, V)),
    "rank 3": (attention, (r(3, 9, 16), r(3, 11, 16), r(3, 11, 16))),
    "shared heads": (lambda *x: attention(*x, enable_gqa=True), (Q, K[:, :2], V[:, :2])),
    "other width of v": (attention, (Q, K, heads(2, 11, 4, 7))),
    "no rows": (attention, (Q[:, :, :0], K, V)),
    "no keys": (attention, (Q, K[:, :, :0], V[:, :, :0])),
    "mask a head": (attention, (Q, K, V, r(4, 9, 11))),
    "strided numbers": (attention, (r(2, 4, 9, 32)[..., ::2], r(2, 4, 16, 11).mT, V)),
    "one row": (attention, (Q[:, :, :1], K, V, PADDING)),
    "one row, shared heads": (lambda *x: attention(*x, enable_gqa=True),
                              (Q[:, :, :1], K[:, :2], V[:, :2], ADDED[:, :, :1])),
    "one row, causal": (lambda *x: attention(*x, is_causal=True), (Q[:, :, :1], K, V)),
    "then linear": (lambda q, k, v, w: linear(attention(q, k, v).transpose(1, 2).flatten(2), w),
                    (Q, K, V), r(32, 64)),
    "spelled": (spelled, (Q, K, V)),
    "spelled, added mask": (spelled, (Q, K, V, ADDED)),
    "spelled, filled": (lambda *x: spelled(*x, fill=-1e9), (Q, K, V, PADDING)),
    "spelled, rows of -inf": (lambda *x: spelled(*x, fill=-math.inf), (Q, K, V, SEEN)),
}  # fmt: skip


def check(function, inputs, w=None, b=None):
    """Compiled equals eager in value and strides, and nothing is left to ATen."""
    module = Function(function, w, b).eval()
    with torch.no_grad(), observed() as graphs:
        y = torch_aio.compile(module, inputs)(*inputs)
        wide = Function(function, *(c if c is None else c.double() for c in (w, b)))
        ref = wide(*(x.double() if x.is_floating_point() else x for x in inputs))
        eager = module(*inputs)
    assert_close(y, ref, eager)
    assert y.stride() == eager.stride() or not y.numel()
    for graph in graphs:
        nodes = graph.variants[0].gm.graph.nodes
        verdicts = {str(n.target): n.meta["verdict"] for n in nodes if "verdict" in n.meta}
        assert not {n: v.reason for n, v in verdicts.items() if v.kind == "aten"}


@pytest.fixture(autouse=True, params=["", "avx2"])
def strict(request, monkeypatch):
    monkeypatch.setenv("AIO_STRICT", "1")
    if request.param:
        monkeypatch.setenv("AIO_ISA", request.param)


@pytest.mark.parametrize("name", PRODUCTS)
def test_product(name):
    """Each form of product is ours and as near to fp64 as eager."""
    check(*PRODUCTS[name])


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name):
    """Each form of attention is ours and as near to fp64 as eager."""
    check(*ATTENTION[name])


class Block(nn.Module):
    """Attention, both forms, between linear layers."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(64, 192), nn.Linear(64, 64)

    def forward(self, x, c):
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, 4, 16).permute(2, 0, 3, 1, 4)
        y = attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, length, 64)
        return self.out(y) + x, (q @ c.transpose(-1, -2) / 4).softmax(-1) @ c


def test_one_plan_serves_all_sizes_but_one():
    """Batch, length and number of keys are symbols; a size of 1 has a plan of its own."""
    module, wide = Block().eval(), Block().eval().double()
    wide.load_state_dict(module.state_dict())
    batch, length, keys = (torch.export.Dim(n) for n in ("batch", "length", "keys"))
    shapes = ({0: batch, 1: length}, {0: batch, 2: keys})
    with torch.no_grad(), observed() as graphs:
        run = torch_aio.compile(module, (r(2, 7, 64), r(2, 4, 9, 16)), dynamic_shapes=shapes)
        for b, n, c in ((2, 7, 9), (3, 12, 5), (2, 128, 33), (4, 2, 2), (1, 5, 1), (2, 100, 300)):
            inputs = r(b, n, 64), r(b, 4, c, 16)
            assert_close(run(*inputs), wide(*(x.double() for x in inputs)), module(*inputs))
    assert len(graphs[0].variants) == 2
