"""Channels joined in place: what is written once, and that all of it is right."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import torch_aio
from accuracy import assert_close, reference, run
from torch_aio.engine import networks
from torch_aio.plan.lower import lower


class Dense(nn.Module):
    """Every layer reads all features before it; the last one is narrow."""

    def __init__(self) -> None:
        super().__init__()
        widths = (32, 48, 64, 80)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.convs = nn.ModuleList(
            nn.Conv2d(width, 16 if width < 80 else 7, 3, padding=1) for width in widths
        )
        self.first = nn.Conv2d(5, 32, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.first(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            features.append(conv(norm(torch.cat(features, 1)).relu()))
        return torch.cat(features, 1)


class Branches(nn.Module):
    """A ``cat`` inside a ``cat``, a branch that is padded elsewhere, and one that occurs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(5, 16, 1), nn.Conv2d(5, 32, 3, padding=1)
        self.c, self.d = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(96, 9, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x).relu(), self.b(x)
        inner = torch.cat([b, a], 1)
        return self.d(torch.cat([a, inner, self.c(a), a], 1))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("module", "copies"), [(Dense(), 0), (Branches(), 2)], ids=["dense", "branches"]
)
def test_parts_are_written_in_place(module, copies, batch, monkeypatch):
    """No part is copied but the second and third occurrence of one."""
    monkeypatch.setenv("AIO_WINOGRAD", "0")
    plans = []
    monkeypatch.setattr(
        networks, "lower", lambda *a, **k: plans.append(lower(*a, **k)) or plans[-1]
    )
    module, x = module.eval(), torch.randn(batch, 5, 6, 7)
    with torch.no_grad():
        y = torch_aio.compile(module, (x,))(x)
    assert_close(y, reference(module, x), run(module, (x,)))
    names = [step.spec.name for step in plans[0].steps]
    assert sum("copy" in name for name in names) == copies
