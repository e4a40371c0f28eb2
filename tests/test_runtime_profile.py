"""The profile per step, and spans for torch.profiler."""

from __future__ import annotations

import torch

import torch_aio
from torch_aio.runtime import profile


def small(x):
    return torch.fft.fft(torch.relu(x * 2) @ x.T).abs() + 1


class Small(torch.nn.Module):
    def forward(self, x):
        return small(x)


def test_every_step_and_every_aten_node_has_a_row(monkeypatch):
    monkeypatch.setenv("AIO_PROFILER", "1")
    profile.reset()
    x = torch.randn(16, 16)
    with torch.no_grad():
        compiled = torch_aio.compile(Small(), (x,))
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for _ in range(3):
                torch.testing.assert_close(compiled(x), small(x))
    report = profile.report()
    first, *rows = report.splitlines()
    assert first.split() == ["kernel", "node", "calls", "total", "ms", "share"]
    assert any(row.startswith("aten._fft_r2c") or "fft" in row for row in rows), report
    assert all(row.split()[-3] == "6" for row in rows[:-1]), report
    assert rows[-1].startswith("total")
    torch._C._aio_profiler_print()
    profile.reset()


def test_off_it_collects_nothing(monkeypatch):
    monkeypatch.delenv("AIO_PROFILER", raising=False)
    profile.reset()
    x = torch.randn(16, 16)
    with torch.no_grad():
        torch_aio.compile(Small(), (x,))(x)
    assert "set AIO_PROFILER=1" in profile.report()


def test_a_call_is_a_span_of_torchs_profiler():
    x = torch.randn(16, 16)
    with torch.no_grad():
        compiled = torch_aio.compile(Small(), (x,))
        compiled(x)
        with torch.profiler.profile() as seen:
            compiled(x)
    assert any(event.key.startswith("torch_aio::Small") for event in seen.key_averages())
