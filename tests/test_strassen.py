"""Strassen products through a front door: where they are taken, and how near they come."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_aio
from accuracy import error, reference, run

LIMIT = 1e-5
"""What a whole network may differ from fp64 (max|y - ref| / max|ref|)."""


@pytest.fixture(autouse=True)
def winograd(monkeypatch):
    monkeypatch.setenv("AIO_WINOGRAD", "1")
    monkeypatch.setenv("AIO_STRICT", "1")


def layer(terms=256, columns=2048):
    return nn.Sequential(nn.Linear(terms, columns), nn.GELU()).eval()


def kernels(model, x, **options):
    """The kernels of a model, after its answer was found near fp64."""
    compiled = torch.compile(model, backend="aio", options=options)
    torch.compiler.reset()
    with torch.no_grad():
        assert error(compiled(x), reference(model, x)) < LIMIT
        explanation = torch_aio.explain(compiled, x)
    return [line.detail for line in explanation.lines if line.verdict == "kernel"]


@pytest.mark.parametrize("shape", [(197, 256), (2, 75, 256)])
def test_large_linear_layers_take_it(shape):
    assert any("strassen" in name for name in kernels(layer(), torch.randn(shape)))


@pytest.mark.parametrize(
    ("model", "rows"),
    [(layer(), 16), (layer(columns=2047), 197), (layer(terms=255), 197), (layer(columns=128), 197)],
    ids=["few rows", "odd columns", "odd terms", "few columns"],
)
def test_other_layers_do_not(model, rows):
    x = torch.randn(rows, model[0].in_features)
    assert not any("strassen" in name for name in kernels(model, x))


@pytest.mark.parametrize("off", ["off", False])
def test_the_option_switches_it_off(off):
    names = kernels(layer(), torch.randn(197, 256), winograd=off)
    assert not any("strassen" in name for name in names)


def test_who_gives_weights_back_gets_plain_products():
    """Strassen's panels take 7/4 of the memory."""
    model, x = layer(), torch.randn(197, 256)
    torch.compiler.reset()
    with torch.no_grad():
        reference = model(x)
        compiled = torch.compile(model, backend="aio", options={"release_weights": True})
        torch.testing.assert_close(compiled(x), reference, rtol=1e-4, atol=1e-4)
        lines = torch_aio.explain(compiled, x).lines
    (kernel,) = [line.detail for line in lines if line.verdict == "kernel"]
    assert kernel.startswith("gemm")


def test_products_of_activations_do_not():
    class Product(nn.Module):
        def forward(self, x):
            return x @ x.mT

    assert not any("strassen" in name for name in kernels(Product(), torch.randn(512, 256)))


def test_explain_says_the_error_to_plain_products():
    compiled = torch.compile(layer(), backend="aio")
    torch.compiler.reset()
    explanation = torch_aio.explain(compiled, torch.randn(197, 256))
    assert 0 < explanation.winograd < LIMIT
    assert "1 Strassen products: error " in str(explanation)


def test_a_changed_weight_is_packed_again():
    model, x = layer(), torch.randn(197, 256)
    frozen = torch.jit.freeze(torch.jit.trace(model, x))
    assert error(run(frozen, [x]), reference(model, x)) < LIMIT
    compiled = torch.compile(model, backend="aio")
    torch.compiler.reset()
    with torch.no_grad():
        compiled(x)
        model[0].weight.mul_(-2)
        assert error(compiled(x), reference(model, x)) < LIMIT


def test_a_deep_network():
    """Errors of twelve layers with residuals do not pile up."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.mlp = nn.LayerNorm(256), nn.Sequential(layer(), nn.Linear(2048, 256))

        def forward(self, x):
            return x + self.mlp(self.norm(x))

    model = nn.Sequential(*(Block() for _ in range(12))).eval()
    assert any("strassen" in name for name in kernels(model, torch.randn(128, 256)))
