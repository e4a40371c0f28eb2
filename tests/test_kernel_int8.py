"""Products of bytes: bit-equal to an int32 reference on every instruction, extremes included."""

from __future__ import annotations

import pytest
import torch

from guarded import guarded
from kernel_runner import NAMES, run_kernel
from torch_aio import cpu
from torch_aio.codegen import isa as isas
from torch_aio.kernels.chain import Chain, Input, Step
from torch_aio.kernels.gemm import scratch_bytes
from torch_aio.kernels.gemm_int8 import GemmInt8
from torch_aio.kernels.gemv_int8 import DIGITS, MOST_ROWS, GemvInt8
from torch_aio.kernels.matrix_epilogue import ACCUMULATOR
from torch_aio.kernels.pack_int8 import HEAD, PackedInt8, PackPanelsInt8
from torch_aio.kernels.panel import panel_columns
from torch_aio.kernels.quantise import QuantiseRows, row_words
from torch_aio.plan.families.products_int8 import best_tile

FEATURES = (cpu.features(), cpu.features() - {"avx512vnni", "avxvnni"})
FOUND = (isas.detect(features, name) for name in NAMES for features in FEATURES)
ISAS = tuple({(i.name, i.dot.name): i for i in FOUND if i is not None and i.dot}.values())
every = pytest.mark.parametrize("isa", ISAS, ids=lambda isa: f"{isa.name}-{isa.dot.name}")
SIZES = (
    (1, 1, 1), (5, 7, 3), (13, 33, 17), (24, 64, 128), (7, 31, 129), (25, 65, 770), (3, 16, 4101),
)  # fmt: skip
BLOCK = 24


def quantised(isa, x, splits=2):
    """The kernel's bytes (as numbers from 0), scales and zeros of the rows of x."""
    m, k = x.shape
    q, info = torch.zeros(m, row_words(k), dtype=torch.int32), torch.zeros(m, 2)
    run_kernel(QuantiseRows(), isa, m, splits, x=x, x_outer=0, x_inner=0, x_row=x.stride(0) * 4,
               q=q, q_row=q.stride(0) * 4, info=info, rows=m, inner=1, k=k)  # fmt: skip
    signed = torch.int8 if isa.dot.offset else torch.uint8
    levels = q.view(signed)[:, :k].to(torch.int64) + isa.dot.offset
    zeros = info.view(torch.int32)[:, 1].to(torch.int64) + isa.dot.offset
    return q, info, levels, info[:, 0], zeros


def multiplied(isa, q, info, panels, n, words, chain=ACCUMULATOR, **operands):
    """C by ``GemmInt8``."""
    m, tile = q.shape[0], best_tile(isa)
    c = torch.full((m, n), float("nan"))
    tiles = torch.full((2 * scratch_bytes(isa, tile, BLOCK) // 4,), float("nan"))
    units = -(-m // BLOCK) * panels.shape[-3]
    run_kernel(GemmInt8(tile, chain), isa, units, 2, a=q, a_outer=0, a_inner=0,
               a_row=q.stride(0) * 4, info=info, info_outer=0, info_inner=0, info_row=8, b=panels,
               b_outer=0, b_inner=0, c=c, c_outer=0, c_inner=0, c_row=n * 4, m=m, n=n, k=words,
               inner=1, chunk=100, block_rows=BLOCK, tiles=tiles, **operands)  # fmt: skip
    return c


def unpacked(panels, n, k):
    """Levels [n, k] and scales [n] of packed panels."""
    turned = panels[..., HEAD:, :].transpose(-1, -2)
    words = turned.clone(memory_format=torch.contiguous_format).view(torch.int8)
    scales = panels[..., 0, :].contiguous().view(torch.float32).flatten(-2)
    return words.flatten(-3, -2)[..., :n, :k].to(torch.int64), scales[..., :n]


@every
def test_rows_become_levels(isa):
    """q = round(x / s + z) of every size; zero is a level; rows of zeros and of one sign."""
    for _, _, k in SIZES:
        x = torch.randn(6, k + 3)[:, :k] * torch.tensor([[1.0], [1e-8], [1e8], [0.0], [1], [1]])
        x[4], x[5] = x[4].abs(), -x[5].abs()
        _, _, levels, scales, zeros = quantised(isa, x)
        low, high = x.amin(1).clamp(max=0), x.amax(1).clamp(min=0)
        steps = torch.tensor(float(isa.dot.levels))
        factor = torch.where(high > low, steps / (high - low), 0.0)
        assert torch.equal(scales, (high - low) / steps)
        assert torch.equal(zeros, (-low * factor).round().clamp(0, steps).long())
        exact = x.double() * factor.double()[:, None] + zeros.double()[:, None]
        assert torch.equal(levels, exact.float().clamp(0, steps).round().long())


@every
def test_products_are_bit_equal_to_an_integer_reference(isa):
    """Every size around lanes, tiles, words and chunks."""
    width = panel_columns(isa, best_tile(isa))
    for m, n, k in SIZES:
        x, weight = torch.randn(m, k) * 3 + 1, torch.randn(n, k)
        q, info, levels, scales, zeros = quantised(isa, x)
        panels = PackedInt8(width, transposed=True)(weight)
        assert torch.equal(panels, PackedInt8(width)(weight.t().contiguous()))
        bytes_, steps = unpacked(panels, n, k)
        got = multiplied(isa, q, info, panels, n, -(-k // 4))
        want = ((levels - zeros[:, None]) @ bytes_.t()).float() * (scales[:, None] * steps)
        assert torch.equal(got, want), (m, n, k)


@every
@pytest.mark.parametrize("low", [False, True])
def test_extremes_neither_saturate_nor_overflow(isa, low):
    """The largest activations times the largest weights, up to the most terms there may be."""
    width, tops = panel_columns(isa, best_tile(isa)), isa.dot.levels
    for k in (4, 772, 1 << 16):
        q = torch.full((2, row_words(k)), -1, dtype=torch.int32)
        q.view(torch.uint8)[:] = tops - isa.dot.offset if not low else -isa.dot.offset % 256
        info = torch.ones(2, 2)
        info.view(torch.int32)[:, 1] = (tops if low else 0) - isa.dot.offset
        weight = torch.ones(3, k) * torch.tensor([[1.0], [-1.0], [0.0]])
        got = multiplied(isa, q, info, PackedInt8(width, transposed=True)(weight), 3, k // 4)
        total = tops * 127 * k * (-1 if low else 1)
        scale = torch.tensor([1, -1, 0]) * total
        want = scale.float() * torch.tensor([1.0, 1.0, 0.0]).div(127)
        assert torch.equal(got, want.expand(2, 3)), k


@every
def test_few_rows_have_activations_of_two_digits(isa):
    """Bit-equal to an integer reference; the error of activations is that of 14 bits or less."""
    (_, vectors), base = best_tile(isa), isa.dot.levels + 1
    for number, (_, n, k) in enumerate(SIZES):
        rows, weight, words = 1 + number % MOST_ROWS, torch.randn(n, k), row_words(k)
        x, c = torch.randn(rows, k), torch.full((rows, n), float("nan"))
        q, info = torch.zeros(rows, DIGITS, words, dtype=torch.int32), torch.zeros(rows, 3)
        run_kernel(QuantiseRows(DIGITS), isa, rows, 1, x=x, x_outer=0, x_inner=0, x_row=k * 4, q=q,
                   q_row=words * 4, info=info, rows=rows, inner=1, k=k)  # fmt: skip
        panels = PackedInt8(panel_columns(isa, best_tile(isa)), transposed=True)(weight)
        run_kernel(GemvInt8(rows, vectors), isa, panels.shape[0], 2, a=q, a_outer=0, a_inner=0,
                   a_row=words * 8, a_digit=words * 4, info=info, info_outer=0, info_inner=0,
                   info_row=12, b=panels, b_outer=0, b_inner=0, c=c, c_outer=0, c_inner=0,
                   c_row=n * 4, n=n, k=-(-k // 4), inner=1)  # fmt: skip
        signed = torch.int8 if isa.dot.offset else torch.uint8
        digits = q.view(signed)[..., :k].long() - info.view(torch.int32)[:, 1:, None].long()
        bytes_, steps = unpacked(panels, n, k)
        high, low = ((digits[:, i] @ bytes_.t()).float() for i in range(2))
        exact = (high.double() * base + low.double()).float()
        assert torch.equal(c, exact * (info[:, :1] * steps))
        near = (digits[:, 0] * base + digits[:, 1]).float() * info[:, :1]
        assert ((near - x).abs() <= info[:, :1] * 0.51).all()


@every
def test_panels_packed_by_a_step_are_those_packed_once(isa):
    """Strided batches; a level may differ by one where the quotient is rounded twice."""
    tile = best_tile(isa)
    width = panel_columns(isa, tile)
    for k, n in ((1, 1), (15, 33), (17, 64), (40, 65)):
        x = torch.randn(2, k, 3, n + 2).transpose(1, 2)[..., 1:-1]
        panels = torch.zeros(2, 3, -(-n // width), HEAD + -(-k // 4), width, dtype=torch.int32)
        names = zip(("x_outer", "x_inner", "x_row"), x.stride(), strict=False)
        whole = torch.as_strided(x, (1,), (1,), 0)
        run_kernel(PackPanelsInt8(tile[1]), isa, 6 * panels.shape[2], 2, x=(whole, 4),
                   y=panels, k=k, n=n,
                   inner=3, **{name: 4 * s for name, s in names})  # fmt: skip
        wanted = PackedInt8(width)(x)
        for got, want in zip(unpacked(panels, n, k), unpacked(wanted, n, k), strict=True):
            torch.testing.assert_close(
                got, want, rtol=1e-6, atol=1 if got.dtype == torch.int64 else 0
            )
        levels, _ = unpacked(panels, n, k)
        assert torch.equal(panels[..., 1, :].flatten(-2)[..., :n].long(), levels.sum(-1))


@every
def test_epilogue_and_fences(isa):
    """Bias, activation and residual behind the scaling; nothing outside the tensors is touched."""
    m, n, k, tile = 13, 35, 19, best_tile(isa)
    chain = Chain(
        (Input("f32", "full"), Input("f32", "channel"), Input("f32", "full")),
        (Step("add", (0, 1), "f32"), Step("relu", (3,), "f32"),
         Step("add", (4, 2), "f32")),
    )  # fmt: skip
    x, weight = guarded(torch.randn(m, k)), torch.randn(n, k)
    bias, residual = guarded(torch.randn(n)), guarded(torch.randn(m, n))
    q, info, *_ = quantised(isa, x)
    panels = guarded(PackedInt8(panel_columns(isa, tile), transposed=True)(weight))
    plain = multiplied(isa, q, info, panels, n, -(-k // 4))
    got = multiplied(isa, q, info, panels, n, -(-k // 4), chain, e1=bias, e1_outer=0, e1_inner=0,
                     e2=residual, e2_outer=0, e2_inner=0, e2_row=n * 4)  # fmt: skip
    assert torch.equal(got, (plain + bias).clamp_min(0) + residual)


@every
def test_a_row_that_is_not_finite_gives_nan_and_no_other_does(isa):
    """NaN and infinities spread over their own row."""
    x, weight = torch.randn(5, 40), torch.randn(9, 40)
    x[1, 5], x[3, 39], x[4, 0] = float("nan"), float("inf"), float("-inf")
    q, info, *_ = quantised(isa, x)
    panels = PackedInt8(panel_columns(isa, best_tile(isa)), transposed=True)(weight)
    got = multiplied(isa, q, info, panels, 9, 10)
    assert torch.equal(got.isnan().any(1), torch.tensor([False, True, False, True, True]))
    assert got[[1, 3, 4]].isnan().all()
