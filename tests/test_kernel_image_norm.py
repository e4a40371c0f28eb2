"""Moments and scales of blocked tensors against fp64."""

from __future__ import annotations

import pytest
import torch

import blocked
from kernel_runner import ISAS, run_kernel
from torch_aio.kernels.image_norm import NormScales, PartMoments

# (samples, images a sample, channels, height, width), groups, rows a part, splits
CASES = [
    ((1, 1, 1, 1, 1), 1, 1, 1),
    ((2, 1, 20, 5, 7), 5, 2, 3),
    ((1, 3, 33, 4, 9), 1, 4, 2),
    ((2, 2, 16, 3, 17), 16, 1, 2),
    ((1, 1, 40, 8, 3), 2, 3, 4),
]


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_channel_gets_the_mean_and_scale_of_its_group(isa, case, weighted):
    (samples, images, channels, height, width), groups, rows, splits = case
    x = torch.randn(samples * images, channels, height, width) + 100
    source, eps = blocked.blocked(x, isa.block, 1, 1), 1e-5
    blocks, count = source.storage.shape[1], -(-height // rows)
    parts = torch.empty(samples * images, blocks, count, 2, isa.block)
    shared = {"parts": parts, "blocks": blocks, "height": height, "width": width,
              "rows": rows, "count": count}  # fmt: skip
    run_kernel(PartMoments(), isa, samples * images * blocks * count, splits,
               x=source.pointer, **source.strides("x"), **shared)  # fmt: skip
    means, scales = (torch.full((samples, blocks * isa.block), torch.nan) for _ in range(2))
    weight = torch.randn(channels)
    given = {"weight": weight} if weighted else {}
    run_kernel(NormScales(weighted), isa, samples * groups, splits, **shared, images=images,
               group=channels // groups, groups=groups, stride=blocks * isa.block * 4, eps=eps,
               means=means, scales=scales, **given)  # fmt: skip
    grouped = x.double().view(samples, images, groups, -1, height * width).transpose(1, 2)
    flat = grouped.reshape(samples, groups, -1)
    each = channels // groups
    mean = flat.mean(-1).repeat_interleave(each, 1)
    scale = (flat.var(-1, correction=0) + eps).rsqrt().repeat_interleave(each, 1)
    scale = scale * weight.double() if weighted else scale
    torch.testing.assert_close(means[:, :channels].double(), mean, rtol=2e-7, atol=0)
    torch.testing.assert_close(scales[:, :channels].double(), scale, rtol=2e-5, atol=1e-5)
    assert (means[:, channels:] == 0).all()
    assert (scales[:, channels:] == 0).all()
