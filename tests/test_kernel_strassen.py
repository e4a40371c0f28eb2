"""Products by Strassen's algorithm: odd and few rows, chunks, splits, epilogues against fp64."""

from __future__ import annotations

import pytest
import torch

from kernel_runner import ISAS, run_kernel
from torch_aio.codegen.types import f32
from torch_aio.kernels.chain import Chain, Input, Step
from torch_aio.kernels.pack_strassen import PackStrassen, StrassenPanels
from torch_aio.kernels.panel import panel_columns
from torch_aio.kernels.strassen import HalfSums, Strassen, scratch_bytes
from torch_aio.runtime.machine import machine
from torch_aio.runtime.pages import settled

HOST = machine().isa
CHEAP = Chain(
    (Input("f32", "full"), Input("f32", "channel"), Input("f32", "full")),
    (Step("add", (0, 1), "f32"), Step("add", (3, 2), "f32")),
)
COSTLY = Chain(CHEAP.inputs, (*CHEAP.steps, Step("tanh", (4,), "f32")))


def strassen(isa, chain, a, b, bias, residual, block, chunk, splits, *, transposed=False):
    """tanh or identity of ``a @ b + bias + residual``."""
    tile = max(isa.tile, key=lambda tile: tile[1])
    (m, k), n, width = a.shape, b.shape[1], panel_columns(isa, tile)
    sums, c = torch.full((4, -(-m // 2), k // 2), float("nan")), torch.full((m, n), float("nan"))
    run_kernel(HalfSums(), isa, sums.shape[1], splits, a=a, a_row=a.stride(0) * 4, sums=sums,
               m=m, k=k)  # fmt: skip
    panels = torch.full((n // 2 // width, 7, k // 2, width), float("nan"))
    run_kernel(PackStrassen(width // isa.lanes(f32), transposed), isa, panels.shape[0], splits,
               x=b.t().contiguous() if transposed else b, y=panels, k=k, n=n)  # fmt: skip
    tiles = torch.full((splits * scratch_bytes(isa, tile, block) // 4,), float("nan"))
    units = -(-sums.shape[1] // block) * (n // (2 * width))
    run_kernel(Strassen(tile, chain), isa, units, splits, a=a, a_row=a.stride(0) * 4, sums=sums,
               b=panels, c=c, c_row=n * 4, m=m, n=n, k=k, chunk=chunk, block_rows=block,
               tiles=tiles, e1=bias, e1_outer=0, e1_inner=0, e2=residual, e2_outer=0, e2_inner=0,
               e2_row=n * 4)  # fmt: skip
    return c


@pytest.mark.parametrize("chain", [CHEAP, COSTLY], ids=["registers", "loop"])
@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_sizes(isa, chain):
    """Rows of every remainder, one and several chunks: within 4 times the error of fp32 sums."""
    width = panel_columns(isa, max(isa.tile, key=lambda tile: tile[1]))
    for number, m in enumerate((1, 2, 3, 11, 12, 13, 14, 23, 25, 49, 64)):
        k, n = 2 * isa.lanes(f32) * (1 + number % 3), 2 * width * (1 + number % 2)
        a, b = torch.randn(m, k + 5)[:, :k], torch.randn(k, n)
        bias, residual = torch.randn(n), torch.randn(m, n)
        c = strassen(isa, chain, a, b, bias, residual, block=(6, 24)[number % 2],
                     chunk=(7, 64)[number // 2 % 2], splits=1 + number % 3,
                     transposed=bool(number % 2))  # fmt: skip
        want = a.double() @ b.double() + bias + residual
        want = want.tanh() if chain is COSTLY else want
        scale = (a.double().abs() @ b.double().abs()).max()
        assert (c - want).abs().max() <= 8e-7 * scale, f"{m}x{n}x{k}"


@pytest.mark.parametrize("transposed", [False, True])
def test_constants_are_packed_on_huge_pages(transposed):
    """The host's own packing: seven sums of the quarters, in the order of the products."""
    width = panel_columns(HOST, max(HOST.tile, key=lambda tile: tile[1]))
    k, n = 8 * HOST.lanes(f32), 4 * width
    b = torch.randn(k, n)
    packed = StrassenPanels(width, transposed)(b.t() if transposed else b)
    b11, b12, b21, b22 = (
        quarter.unflatten(1, (-1, width)).transpose(0, 1)
        for quarter in (
            b[: k // 2, : n // 2], b[: k // 2, n // 2 :],
            b[k // 2 :, : n // 2], b[k // 2 :, n // 2 :],
        )
    )  # fmt: skip
    t1 = b12 - b11
    t2 = b22 - t1
    expected = torch.stack([b11, b21, t2, b22 - b12, b21 - t2, t1, b22], 1)
    assert torch.equal(packed, expected)
    assert settled(packed) is packed
