"""Convolutions in int8: bit-equal to an integer reference, by image, through the engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import torch_aio
from torch_aio import cpu
from torch_aio.engine import compiled
from torch_aio.runtime import machine

CASES = [
    (nn.Conv2d(5, 1, 1, bias=False), (1, 5, 1, 1)),
    (nn.Conv2d(16, 33, 3, padding=1, bias=False), (2, 16, 9, 11)),
    (nn.Conv2d(40, 64, 1, bias=False), (3, 40, 14, 14)),
    (nn.Conv2d(20, 70, 3, 2, 1, bias=False), (2, 20, 15, 17)),
    (nn.Conv2d(33, 17, (5, 3), (1, 2), (2, 0), (1, 2), bias=False), (1, 33, 12, 19)),
    (nn.Conv2d(8, 130, 4, padding="same", bias=False), (1, 8, 30, 5)),
    (nn.Conv1d(32, 48, 5, padding=2, bias=False), (2, 32, 50)),
    (nn.Conv2d(70, 96, 2, 2, bias=False), (1, 70, 28, 28)),
]


@pytest.fixture(params=["", "avx2", "avx512"])
def levels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The levels of activations: as the machine has them, and without whole bytes."""
    monkeypatch.setenv("AIO_STRICT", "1")
    if request.param:
        features = cpu.features() - {"avx512vnni", "avxvnni"}
        monkeypatch.setattr(cpu, "features", lambda: features)
        monkeypatch.setenv("AIO_ISA", request.param)
        machine._machine.cache_clear()
    host = machine.machine()
    if host is None or host.isa.dot is None:
        pytest.skip(f"this machine has no {request.param or 'products of bytes'}")
    yield host.isa.dot.levels
    machine._machine.cache_clear()


def run(model: nn.Module, x: Tensor) -> tuple[Tensor, list[str]]:
    """The answer in int8 and the kernels."""
    with torch.no_grad(), compiled.observed() as graphs:
        answer = torch_aio.compile(model.eval(), (x,), options={"int8_filter": "Conv"})(x)
    plans = [n.plan for g in graphs for v in g.variants for n in v.networks.values()]
    return answer, [step.spec.name for plan in plans for step in plan.steps]


def reference(model: nn.Conv1d | nn.Conv2d, x: Tensor, levels: int) -> Tensor:
    """The same scheme with integers that fp64 holds exactly."""
    low, high = x.flatten(1).amin(1).clamp(max=0), x.flatten(1).amax(1).clamp(min=0)
    steps = torch.tensor(float(levels))
    shape = (-1,) + (1,) * (x.dim() - 1)
    factor, scale = (steps / (high - low)).view(shape), ((high - low) / steps).view(shape)
    zero = (-low.view(shape) * factor).round()
    q = (x.double() * factor.double() + zero.double()).float().clamp(0, levels).round()
    weight = model.weight.detach()
    columns = (weight.flatten(1).abs().amax(1) / 127).view((-1,) + (1,) * (x.dim() - 1))
    integer = (weight / columns).round().double()
    exact = model._conv_forward((q - zero).double(), integer, None).float()
    return exact * (columns.view((1, -1) + (1,) * (x.dim() - 2)) * scale)


def test_convolutions_are_bit_equal_to_an_integer_reference(levels: int) -> None:
    """Every image has its own scale; padding is zero whatever zero became."""
    for model, shape in CASES:
        x = torch.randn(shape) * torch.arange(1, shape[0] + 1).view(-1, *(1,) * (len(shape) - 1))
        answer, kernels = run(model, x + 0.5)
        assert any(name.startswith("conv_int8") for name in kernels), kernels
        assert torch.equal(answer, reference(model, x + 0.5, levels)), model


@pytest.mark.parametrize("levels", [""], indirect=True)
def test_bias_batch_norm_activation_and_residual_follow_in_registers(levels: int) -> None:
    """One step for all; a chain of convolutions stays within a few percent."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(24, 40, 3, padding=1), nn.Conv2d(40, 24, 1)
            self.norm = nn.BatchNorm2d(40)

        def forward(self, x: Tensor) -> Tensor:
            return (self.second(self.norm(self.first(x)).relu()) + x).relu()

    model, x = Block().eval(), torch.randn(2, 24, 13, 10)
    answer, kernels = run(model, x)
    assert sum(name.startswith("conv_int8") for name in kernels) == 2
    want = model(x).detach()
    assert (answer - want).abs().max() < 0.03 * want.abs().max()
    assert levels in (127, 255)


@pytest.mark.parametrize("levels", [""], indirect=True)
@pytest.mark.parametrize(
    ("model", "channels", "reason"),
    [
        (nn.Conv2d(16, 16, 3, groups=16), 16, "convolutions in groups are bound by memory"),
        (nn.Conv2d(3, 16, 3), 3, "an input of few channels is read as it is"),
        (nn.Conv2d(7300, 2, 3), 7300, "sums of more than 65536 terms do not fit 32 bits"),
    ],
)
def test_what_stays_in_fp32_says_why(
    levels: int, model: nn.Module, channels: int, reason: str
) -> None:
    """The reason is on the node; the kernel is the usual one."""
    x = torch.randn(1, channels, 6, 6)
    with torch.no_grad(), compiled.observed() as graphs:
        answer = torch_aio.compile(model.eval(), (x,), options={"int8_filter": ".*"})(x)
        torch.testing.assert_close(answer, model(x), atol=1e-4, rtol=1e-4)
    refused = [n.meta.get("refused", {}) for n in graphs[0].variants[0].gm.graph.nodes]
    assert {"quantise": reason} in refused
    assert levels


@pytest.mark.parametrize("levels", [""], indirect=True)
def test_an_image_that_is_not_finite_spoils_no_other(levels: int) -> None:
    """NaN spreads over its own image."""
    model, x = nn.Conv2d(16, 16, 1), torch.randn(3, 16, 4, 4)
    x[1, 3, 2, 1] = float("inf")
    answer, _ = run(model, x)
    assert answer[1].isnan().all()
    assert answer[[0, 2]].isfinite().all()
    assert levels
