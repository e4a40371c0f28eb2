"""Winograd convolutions through a front door: where they are taken, and how near they come."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import relu

import torch_aio
from accuracy import error, reference, run
from torch_aio.engine.compiled import observed
from torch_aio.plan.families.winograd import _blocks

LIMIT = 1e-5
"""What a whole network may differ from fp64 (max|y - ref| / max|ref|)."""


@pytest.fixture(autouse=True)
def winograd(monkeypatch):
    monkeypatch.setenv("AIO_WINOGRAD", "1")
    monkeypatch.setenv("AIO_STRICT", "1")


def kernels(model, *inputs, **options):
    """The kernels of a model, after its answer was found near fp64."""
    compiled = torch.compile(model, backend="aio", options=options)
    torch.compiler.reset()
    with torch.no_grad():
        y = compiled(*inputs)
        assert error(y, reference(model, *inputs)) < LIMIT
        explanation = torch_aio.explain(compiled, *inputs)
    return [line.detail for line in explanation.lines if line.verdict == "kernel"]


@pytest.mark.parametrize("stride", [1, 2])
def test_three_by_three_convolutions_take_it(stride):
    model = nn.Conv2d(32, 48, 3, stride, padding=1).eval()
    assert any("winograd" in name for name in kernels(model, torch.randn(1, 32, 60, 73)))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(32, 48, 3, stride=3),
        nn.Conv2d(32, 48, 3, stride=(1, 2)),
        nn.Conv2d(32, 48, (3, 1)),
        nn.Conv2d(32, 48, 3, dilation=2),
        nn.Conv2d(32, 64, 3, groups=2),
        nn.Conv2d(8, 48, 3),
    ],
    ids=str,
)
def test_other_convolutions_do_not(conv):
    x = torch.randn(1, conv.in_channels, 20, 23)
    assert not any("winograd" in name for name in kernels(conv.eval(), x))


@pytest.mark.parametrize("off", ["off", False])
def test_the_option_switches_it_off(off):
    names = kernels(nn.Conv2d(32, 48, 3).eval(), torch.randn(1, 32, 20, 23), winograd=off)
    assert not any("winograd" in name for name in names)


class Residual(nn.Module):
    """relu(conv(relu(conv(x))) + x) times a gate that differs by image."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(24, 40, 3, padding=1)
        self.second = nn.Conv2d(40, 24, 3, padding=(1, 0), bias=False)

    def forward(self, x, gate):
        inner = self.second(relu(self.first(x)))
        return relu(inner + x[..., 1:-1]) * gate.mean((2, 3), keepdim=True)


@pytest.mark.parametrize("plane", [(7, 7), (9, 16), (31, 5)])
def test_residuals_gates_and_batches(plane):
    model = Residual().eval()
    names = kernels(model, torch.randn(3, 24, *plane), torch.randn(3, 24, 4, 4))
    assert any("winograd" in name for name in names)


@pytest.mark.parametrize("winograd", ["auto", "off"])
def test_a_gate_that_differs_by_image_behind_a_convolution(winograd):
    """Small planes of a batch share register tiles only where every operand does."""

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(32, 32, 3, padding=1)

        def forward(self, x, gate):
            return self.conv(x) * gate.mean((2, 3), keepdim=True)

    kernels(Gated().eval(), torch.randn(2, 32, 9, 9), torch.randn(2, 32, 3, 3), winograd=winograd)


def test_every_thread_has_a_unit():
    """28x28 is 49 tiles and two panels of 128 channels: one block for two threads, more for 16."""
    assert _blocks(49, 2, 5) == 1
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(16)
        assert _blocks(49, 2, 5) == 8
        assert _blocks(16, 2, 5) == 3  # a block has a whole register tile
    finally:
        torch.set_num_threads(threads)


def test_sizes_may_change():
    model = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 16, 3)).eval()
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aio", dynamic=True)
    with torch.no_grad():
        for size in ((1, 17, 20), (2, 33, 9), (1, 64, 41)):
            x = torch.randn(size[0], 32, *size[1:])
            assert error(compiled(x), reference(model, x)) < LIMIT


def test_explain_says_the_error_to_direct_convolution():
    model, x = nn.Conv2d(32, 48, 3, padding=1).eval(), torch.randn(1, 32, 20, 23)
    compiled = torch.compile(model, backend="aio")
    torch.compiler.reset()
    explanation = torch_aio.explain(compiled, x)
    assert 0 < explanation.winograd < LIMIT
    assert "1 Winograd convolutions: error " in str(explanation)
    with torch.no_grad():
        again = torch_aio.explain(compiled, x)
    assert again.winograd == explanation.winograd


def test_explain_leaves_released_weights_and_packs_alone():
    """Without originals there is nothing to compare with; a comparison's packs go with it."""
    model, x = nn.Conv2d(32, 48, 3, padding=1).eval(), torch.randn(1, 32, 20, 23)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aio")
    with observed() as graphs:
        torch_aio.explain(compiled, x)
    (graph,) = graphs
    assert [set(state.packs) for state in graph._states.values()] == [set(graph.variants)]
    torch.compiler.reset()
    released = torch.compile(model, backend="aio", options={"release_weights": True})
    assert torch_aio.explain(released, x).winograd is None


@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_whole_networks(name):
    models = pytest.importorskip("torchvision.models")
    model, x = getattr(models, name)().eval(), torch.randn(1, 3, 64, 64)
    frozen = torch.jit.freeze(torch.jit.trace(model, x))
    exact = reference(model, x)
    assert error(run(frozen, [x]), exact) < LIMIT
