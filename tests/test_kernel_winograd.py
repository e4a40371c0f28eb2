"""Winograd convolution in the blocked layout against fp64, and the matrices it is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d

import blocked
from kernel_runner import ISAS, run_kernel
from torch_aio.codegen.types import f32
from torch_aio.kernels.blocked import ACCUMULATOR
from torch_aio.kernels.cook_toom import POINTS, PackWinograd, filtering, taps_of
from torch_aio.kernels.winograd import Winograd, scratch_bytes, tile_table

ERROR = {(1, 2): 8e-7, (1, 4): 4e-6, (2, 2): 1.2e-6}
"""Bounds of max|y - ref| / max|ref| on normal numbers, by stride and outputs.

Measured: 3e-7, 1.5e-6 and 4e-7 at most."""


@dataclass(frozen=True)
class Case:
    """A convolution, its register tile in vectors, and how its work is divided."""

    inputs: int
    outputs: int
    plane: tuple[int, int, int]
    splits: int = 1
    tiles_a_block: int = 5
    tile: tuple[int, int] = (4, 2)


CASES = [
    Case(1, 1, (1, 1, 1)),
    Case(3, 7, (2, 5, 3), splits=2),
    Case(16, 64, (1, 13, 11), splits=3),
    Case(33, 80, (1, 7, 7), tile=(6, 1)),
    Case(64, 33, (3, 4, 8), splits=5, tiles_a_block=4),
    Case(20, 48, (2, 9, 14), splits=2, tiles_a_block=100),
]


def run(isa, case: Case, form, x, weight, chain=ACCUMULATOR, merged=True, **operands):
    stride, outputs = form
    source = blocked.blocked(x, isa.block, 1, 1)
    n, channels, height, width = conv2d(x, weight, None, stride, 1).shape
    y = blocked.empty((n, channels, height, width), isa.block, 1, 2)
    prefetch = case.splits > 1
    spec = Winograd(outputs, stride, case.tile, bool(channels % isa.block), prefetch, chain)
    images, batch = (n, 1) if merged else (1, n)
    strides = []
    for value in (source, y, *operands.get("full", ())):
        image, _, row = value.strides("v").values()
        step = stride if value is source else 1
        strides += [image, step * row, step * isa.block * 4]
    table = torch.from_numpy(tile_table(outputs, images, height, width, *strides))
    extra = blocked.operands(isa.block, rows=True, **operands) if operands else {}
    lanes, vectors = isa.lanes(f32), case.tile[1]
    in_blocks = math.ceil(case.inputs / isa.block)
    out_vectors = math.ceil(channels / isa.block) * isa.block // lanes
    panels = math.ceil(out_vectors / vectors)
    units = batch * math.ceil(table.shape[1] / case.tiles_a_block) * panels
    size = scratch_bytes(isa, spec, case.tiles_a_block, in_blocks)
    work = torch.full((case.splits * size // 4,), math.nan).view(torch.uint8)
    run_kernel(spec, isa, units, case.splits,
               x=source.storage, **source.strides("x"), y=y.pointer, **y.strides("y"),
               w=PackWinograd(outputs, stride, isa.block, vectors * lanes)(weight), table=table,
               tiles=table.shape[1], channels=channels, in_blocks=in_blocks,
               out_vectors=out_vectors, tiles_a_block=case.tiles_a_block, work=work,
               **extra)  # fmt: skip
    return y.logical()


@pytest.mark.parametrize("form", ERROR, ids="stride{0[0]}-outputs{0[1]}".format)
@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_winograd_is_near_fp64(isa, case, form):
    """Ragged tiles, images in the table or in the units; no byte outside the input is read."""
    x = torch.randn(case.plane[0], case.inputs, *case.plane[1:])
    weight = torch.randn(case.outputs, case.inputs, 3, 3)
    want = conv2d(x.double(), weight.double(), None, form[0], 1)
    for merged in (True, False):
        y = run(isa, case, form, x, weight, merged=merged)
        assert (y - want).abs().max() / want.abs().max() < ERROR[form]


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("case", [CASES[2], CASES[3]], ids=str)
def test_epilogue_keeps_padding_zero(isa, case):
    """sigmoid(conv + bias) + a, times b: f(0) is not 0, and padding lanes still are."""
    x = torch.randn(case.plane[0], case.inputs, *case.plane[1:])
    weight, bias = torch.randn(case.outputs, case.inputs, 3, 3), torch.randn(case.outputs)
    plain = conv2d(x, weight, bias, padding=1)
    a, b = torch.randn_like(plain), torch.randn_like(plain)
    full = (blocked.blocked(a, isa.block, 0, 3), blocked.blocked(b, isa.block))
    y = run(isa, case, (1, 4), x, weight, blocked.SIGMOID_ADD, bias=bias, full=full)
    torch.testing.assert_close(y, (plain.sigmoid() + a) * b, rtol=1e-4, atol=1e-4)


def test_every_form_has_a_bound():
    assert set(ERROR) == {(stride, outputs) for stride in POINTS for outputs in POINTS[stride]}


@pytest.mark.parametrize("form", ERROR, ids="stride{0[0]}-outputs{0[1]}".format)
def test_matrices_filter_exactly(form):
    """A^T [(G g) * (B^T d)] is the filter itself, in exact arithmetic."""
    stride, outputs = form
    matrices = filtering(outputs, stride)
    d, g = np.arange(1, taps_of(outputs, stride) + 1) ** 2, np.array([3, -1, 5])
    b, left, a = (np.array(m, dtype=object) for m in (matrices.b, matrices.g, matrices.a))
    want = [sum(d[stride * i + n] * g[n] for n in range(3)) for i in range(outputs)]
    assert list(a @ ((left @ g) * (b @ d))) == want
