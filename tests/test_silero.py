"""Silero's voice detector as its package ships it: TorchScript with branches, state, two rates."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from torch_aio import explain
from torch_aio.capture.torchscript import runner_of

silero = pytest.importorskip("silero_vad", reason="scripts/setup installs it")
PATH = str(Path(silero.__file__).parent / "data" / "silero_vad.jit")
RATES = {16000: 512, 8000: 256}


def speech(rate: int, seconds: int = 3) -> torch.Tensor:
    """Chunks of a voice of three harmonics that comes and goes, over some noise."""
    t = torch.arange(rate * seconds) / rate
    voice = sum(a * torch.sin(2 * torch.pi * f * t) for f, a in ((140, 1), (280, 0.5), (700, 0.3)))
    loudness = torch.sin(2 * torch.pi * 2 * t).clamp(min=0)
    signal = 0.3 * voice * loudness + 0.01 * torch.randn(len(t))
    size = RATES[rate]
    return signal[: len(signal) // size * size].view(-1, size)


@pytest.fixture
def stock() -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(PATH).eval()


@pytest.fixture
def frozen(monkeypatch) -> torch.jit.ScriptModule:
    monkeypatch.setenv("AIO_STRICT", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.freeze(torch.jit.load(PATH).eval(), preserved_attrs=["reset_states"])


def test_probabilities_are_the_stock_modules(stock, frozen):
    """At both rates, for one stream and two, over many chunks, states reset in between."""
    heard = []
    with torch.no_grad():
        for rate in RATES:
            chunks = speech(rate)
            assert len(chunks) > 80
            for batch in (1, 2):
                frozen.reset_states()
                stock.reset_states()
                for n, chunk in enumerate(chunks):
                    if n == 50:
                        frozen.reset_states()
                        stock.reset_states()
                    x = chunk.expand(batch, -1)
                    ours, theirs = frozen(x, rate), stock(x, rate)
                    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
                    heard.append(float(ours[0]))
    assert max(heard) > 0.9
    assert min(heard) < 0.1
    assert 2 <= runner_of(frozen).captures <= 8


def test_reset_forgets(frozen):
    """The same chunks after a reset give the same probabilities, and other ones without it."""
    chunks = speech(16000)[:20]
    with torch.no_grad():
        first = [float(frozen(x[None], 16000)) for x in chunks]
        other = [float(frozen(x[None], 16000)) for x in chunks]
        frozen.reset_states()
        again = [float(frozen(x[None], 16000)) for x in chunks]
    assert first == again
    assert first != other


@pytest.mark.parametrize("rate", RATES)
def test_the_engine_runs_it(frozen, rate, monkeypatch, capsys):
    """PyTorch's interpreter gets no call any more; 80 % of the tensor nodes at least are ours."""
    chunks = speech(rate)
    with torch.no_grad():
        for chunk in chunks[:3]:
            frozen(chunk[None], rate)
        captures = runner_of(frozen).captures
        monkeypatch.setattr(runner_of(frozen), "_original", None)  # a fallback would call it
        found = explain(frozen, chunks[3][None], rate)
    assert f"{found.networks} networks" in capsys.readouterr().out
    assert found.networks >= 1
    assert not found.failures
    assert found.nodes >= 0.8, found.left_to_aten
    assert found.flops >= 0.99
    kernels = {line.detail.split("_")[0] for line in found.lines if line.verdict == "kernel"}
    assert len(kernels) >= 3, kernels
    assert runner_of(frozen).captures == captures


def test_errors_are_the_stock_modules(frozen):
    with torch.no_grad(), pytest.raises(torch.jit.Error, match="too short"):
        frozen(torch.zeros(1, 100), 16000)
