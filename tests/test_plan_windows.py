"""Convolution and pooling modules through the engine: every node ours, as near to fp64 as eager."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import torch_aio
from accuracy import assert_close, reference, run


class Gated(nn.Module):
    """Squeeze and excite: a per-channel operand computed in the network; sigmoid(0) is not 0."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv2d(5, 20, 3, padding=1), nn.Conv2d(20, 20, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.gate(torch.nn.functional.adaptive_avg_pool2d(y, 1)).sigmoid() * y


class Averaged(Gated):
    """The same with the planes averaged by ``mean``."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return (self.gate(y.mean((2, 3), keepdim=True)).sigmoid() * y).mean((2, 3))


class Block(nn.Module):
    """A residual block around depthwise convolution; the sum is read twice, padded and not."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(24, 40, 1)
        self.b = nn.Conv2d(40, 40, 3, padding=1, groups=40)
        self.c = nn.Conv2d(40, 24, 1, bias=False)
        self.d = nn.Conv2d(24, 9, 5, stride=2, padding=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = x + self.c(self.b(self.a(x).relu()).clamp(0, 6))
        return self.d(y), y.sigmoid()


def picture(channels: int, *plane: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, channels, *plane)


CASES = {
    "one pixel": (nn.Conv2d(1, 1, 1), picture(1, 1, 1)),
    "first layer": (nn.Conv2d(3, 64, 7, 2, 3, bias=False), picture(3, 33, 30)),
    "first layer, no padding": (nn.Conv2d(3, 16, 3), picture(3, 9, 11, batch=2)),
    "channels last": (nn.Conv2d(3, 16, 3), picture(3, 9, 11).to(memory_format=torch.channels_last)),
    "expanded": (nn.Conv2d(3, 8, 3, padding=1), torch.randn(1, 1, 6, 6).expand(2, 3, 6, 6)),
    "odd channels": (nn.Conv2d(33, 17, 3, (1, 2), (0, 1), (2, 1)), picture(33, 13, 9, batch=3)),
    "weight bound": (nn.Conv2d(256, 200, 3, padding=1), picture(256, 5, 5)),
    "large batch": (nn.Conv2d(16, 24, 1), picture(16, 3, 3, batch=7)),
    "conv1d": (nn.Conv1d(20, 33, 5, 2, 2), picture(20, 40, batch=2)),
    "long filter": (nn.Conv1d(1, 18, 24, 5, 3), picture(1, 90)),
    "same": (nn.Conv2d(8, 8, (2, 4), padding="same"), picture(8, 6, 7)),
    "groups of blocks": (nn.Conv2d(64, 32, 3, groups=2, padding=1), picture(64, 6, 7)),
    "narrow groups": (nn.Conv2d(36, 36, 3, groups=9, padding=1), picture(36, 6, 7)),
    "any groups": (nn.Conv2d(15, 21, 3, groups=3, padding=1), picture(15, 6, 7, batch=2)),
    "wide groups": (nn.Conv2d(48, 72, 3, groups=2, stride=2, padding=1), picture(48, 6, 7)),
    "multiplier": (nn.Conv2d(7, 21, 3, groups=7, padding=1), picture(7, 6, 7)),
    "depthwise": (nn.Conv2d(19, 19, 3, 2, 1, groups=19), picture(19, 9, 10, batch=2)),
    "depthwise conv1d": (nn.Conv1d(19, 19, 7, padding=9, dilation=3, groups=19), picture(19, 30)),
    "block": (Block(), picture(24, 7, 9)),
    "gate": (Gated(), picture(5, 8, 6, batch=3)),
    "means": (Averaged(), picture(5, 8, 6, batch=3)),
    "max pool": (nn.MaxPool2d(3, 2, 1, ceil_mode=True), picture(9, 12, 12)),
    "max pool 1d": (nn.MaxPool1d(2), picture(9, 13)),
    "avg pool": (nn.AvgPool2d((3, 2), padding=1, count_include_pad=False), picture(9, 12, 7)),
    "avg pool 1d": (nn.AvgPool1d(3, 2, ceil_mode=True), picture(20, 14)),
    "adaptive pool": (nn.AdaptiveAvgPool2d((3, None)), picture(20, 8, 5)),
    "adaptive pool 1d": (nn.AdaptiveAvgPool1d(4), picture(20, 10)),
}


@pytest.mark.parametrize("name", CASES)
def test_module(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIO_STRICT", "1")
    model, x = CASES[name]
    model.eval()
    with torch.no_grad():
        compiled = torch_aio.compile(model, (x,))
        result = compiled(x)
        want = run(model, (x,))
        assert_close(result, reference(model, x), want, name)
        for ours, eager in zip(
            *(r if isinstance(r, tuple) else (r,) for r in (result, want)), strict=True
        ):
            assert ours.stride() == eager.stride()
        explanation = torch_aio.explain(compiled, x)
    assert not explanation.left_to_aten, str(explanation)


def test_sizes_may_change() -> None:
    """A plan with symbolic sizes is bound again; pixel tables follow."""
    model = nn.Sequential(nn.Conv2d(3, 20, 3, 2, 1), nn.ReLU(), nn.Conv2d(20, 20, 3, padding=1),
                          nn.MaxPool2d(2), nn.Conv2d(20, 20, 3, groups=20)).eval()  # fmt: skip
    dims = {0: torch.export.Dim("n", max=8), 2: torch.export.Dim("h", min=20, max=99)}
    with torch.no_grad():
        compiled = torch_aio.compile(model, (picture(3, 24, 22, batch=2),), dynamic_shapes=(dims,))
        for batch, height in ((2, 24), (1, 31), (5, 20), (2, 24)):
            x = picture(3, height, 22, batch=batch)
            assert_close(compiled(x), reference(model, x), run(model, (x,)), f"{batch} {height}")


def test_non_finite_values_go_where_eager_sends_them() -> None:
    model = nn.Sequential(
        nn.Conv2d(9, 18, 3, groups=3), nn.Conv2d(18, 7, 1), nn.MaxPool2d(2)
    ).eval()
    x = picture(9, 8, 9)
    x[0, 4, 3, 3], x[0, 0, 6, 6] = float("nan"), float("inf")
    with torch.no_grad():
        result = torch_aio.compile(model, (x,))(x)
        torch.testing.assert_close(result, model(x), equal_nan=True, rtol=1e-4, atol=1e-4)
