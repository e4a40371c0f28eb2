"""Resampling in the blocked layout against PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

import blocked
from accuracy import assert_close
from kernel_runner import ISAS, run_kernel
from torch_aio.kernels.resample import TAPS, Resample, TapTable

# mode, PyTorch's name, (batch, channels, height, width), outputs, align_corners, splits
MODES = [
    ("nearest", "nearest", (2, 17, 5, 7), (10, 14), None, 3),
    ("nearest", "nearest", (1, 3, 9, 1), (4, 1), None, 1),
    ("exact", "nearest-exact", (1, 16, 5, 7), (7, 5), None, 2),
    ("linear", "bilinear", (1, 33, 5, 7), (10, 14), False, 2),
    ("linear", "bilinear", (2, 8, 5, 7), (9, 1), True, 1),
    ("cubic", "bicubic", (1, 9, 5, 7), (8, 11), False, 2),
]


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("case", MODES, ids=str)
def test_resampling_is_as_near_to_fp64_as_eager(isa, case):
    mode, name, shape, size, corners, splits = case
    x = torch.randn(shape)
    source = blocked.blocked(x, isa.block)
    y = blocked.empty((*shape[:2], *size), isa.block, 1, 1)
    steps = source.strides("x")
    rule = TapTable(mode, bool(corners))
    rows = rule(shape[2], size[0], steps.pop("x_row"))
    columns = rule(shape[3], size[1], isa.block * 4)
    blocks = source.storage.shape[1]
    run_kernel(Resample(TAPS[mode]), isa, shape[0] * blocks * size[0], splits,
               x=source.storage, **steps, y=y.pointer, **y.strides("y"), blocks=blocks,
               height=size[0], width=size[1], rows=torch.from_numpy(rows),
               columns=torch.from_numpy(columns))  # fmt: skip

    def eager(t: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(t, size, mode=name, align_corners=corners)

    assert_close(y.logical(), eager(x.double()), eager(x), mode)


def test_the_nearest_pixel_is_eagers_at_every_scale():
    """Rounding in f32 decides which of two pixels is nearest."""
    for inputs in (5, 7, 30):
        x = torch.arange(inputs, dtype=torch.float32)[None, None]
        for scale in (0.3, 0.7, 1.1, 1.7, 2.0, 2.9, 3.3):
            for mode, name in (("nearest", "nearest"), ("exact", "nearest-exact")):
                want = functional.interpolate(x, scale_factor=scale, mode=name)[0, 0]
                table = TapTable(mode, scale=scale)(inputs, len(want), 1)
                assert table[:, 0].tolist() == want.int().tolist()
