"""Reorders between strided and blocked tensors, padding and halos."""

from __future__ import annotations

import pytest
import torch

import blocked
from kernel_runner import ISAS, run_kernel
from torch_aio.kernels.reorder import FromBlocked, HaloZero, PadPlanar, ToBlocked

SHAPES = [
    (1, 1, 1, 1), (1, 3, 5, 7), (2, 7, 1, 16), (1, 8, 4, 17), (1, 9, 3, 33), (2, 15, 6, 15),
    (1, 16, 2, 19), (3, 17, 2, 8), (1, 32, 1, 31), (1, 33, 17, 19), (2, 64, 1, 4),
]  # fmt: skip


def strided(shape: tuple[int, ...], dense: str) -> torch.Tensor:
    """A tensor of this shape with dimension w, c or none dense; it ends at a guard page."""
    n, c, h, w = shape
    if dense == "w":
        return blocked.guarded(shape)
    if dense == "c":
        return blocked.guarded((n, h, w, c)).permute(0, 3, 1, 2)
    return blocked.guarded((w, h, n, c, 2))[..., 1].permute(2, 3, 1, 0)


def steps(x: torch.Tensor, prefix: str) -> dict[str, int]:
    names = ("n", "c", "h", "w")
    return {f"{prefix}_{d}": s * 4 for d, s in zip(names, x.stride(), strict=True)}


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("dense", ["w", "c", ""])
def test_to_blocked_and_back(isa, dense):
    """Every value arrives, padding lanes are zero, the halo is left alone, in any split."""
    for i, shape in enumerate(SHAPES):
        n, channels, height, width = shape
        x = strided(shape, dense)
        x.copy_(torch.randn(shape))
        halo = (i % 3, i % 2 + 1)
        y = blocked.empty(shape, isa.block, *halo)
        units = n * y.storage.shape[1] * height
        size = {"channels": channels, "height": height, "width": width}
        run_kernel(ToBlocked(dense), isa, units, i % 3 + 1,
                   x=x, **steps(x, "x"), y=y.pointer, **y.strides("y"), **size)  # fmt: skip
        assert torch.equal(y.logical(), x)
        assert y.storage.count_nonzero() <= x.numel()
        z = strided(shape, dense)
        z.fill_(float("nan"))
        run_kernel(FromBlocked(dense), isa, units, i % 3 + 1,
                   x=y.pointer, **y.strides("x"), y=z, **steps(z, "y"), **size)  # fmt: skip
        assert torch.equal(z, x)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_special_values_pass_through(isa):
    x = torch.tensor([float("nan"), float("inf"), -0.0, 1e-41, -float("inf")] * 10)
    x = x.view(1, 2, 1, 25)
    y = blocked.empty((1, 2, 1, 25), isa.block)
    run_kernel(ToBlocked("w"), isa, 1, x=x, **steps(x, "x"), y=y.pointer, **y.strides("y"),
               channels=2, height=1, width=25)  # fmt: skip
    assert torch.equal(y.logical().view(torch.int32), x.view(torch.int32))


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_halo_zero_clears_the_frame_only(isa):
    for (top, left), splits in (((0, 1), 1), ((1, 0), 2), ((3, 2), 5)):
        x = torch.randn(2, 17, 5, 6)
        y = blocked.blocked(x, isa.block, top, left)
        inner = y.logical()
        y.storage[:, :, :top] = y.storage[:, :, 5 + top :] = float("nan")
        y.storage[:, :, :, :left] = y.storage[:, :, :, 6 + left :] = float("nan")
        blocks = y.storage.shape[1]
        run_kernel(HaloZero(), isa, 2 * blocks, splits, y=y.pointer, **y.strides("y"),
                   blocks=blocks, height=5, width=6,
                   top=top, bottom=top, left=left, right=left)  # fmt: skip
        assert torch.equal(y.logical(), inner)
        assert y.storage.isfinite().all()
        assert y.storage.count_nonzero() == inner.count_nonzero()


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("dense", [True, False])
def test_pad_planar_equals_pad(isa, dense):
    for shape, (left, right, top, bottom) in (
        ((2, 3, 5, 17), (3, 3, 3, 3)), ((1, 1, 1, 40), (1, 2, 0, 0)), ((1, 2, 3, 3), (0, 5, 1, 4)),
    ):  # fmt: skip
        x = strided(shape, "w" if dense else "")
        x.copy_(torch.randn(shape))
        want = torch.nn.functional.pad(x, (left, right, top, bottom))
        y = blocked.guarded(tuple(want.shape))
        y.fill_(float("nan"))
        y_n, y_c, y_row, _ = (s * 4 for s in y.stride())
        run_kernel(PadPlanar(dense), isa, shape[0] * shape[1] * want.shape[2], 2,
                   x=x, **steps(x, "x"), y=y, y_n=y_n, y_c=y_c, y_row=y_row,
                   channels=shape[1], height=shape[2], width=shape[3],
                   top=top, bottom=bottom, left=left, right=right)  # fmt: skip
        assert torch.equal(y, want)
