"""Matrix products: every tile against fp64, epilogues, batches, splits, special values, fences."""

from __future__ import annotations

import pytest
import torch

from accuracy import assert_close
from guarded import guarded
from kernel_runner import ISAS, run_kernel
from torch_aio.codegen.types import f32
from torch_aio.kernels.chain import Chain, Const, Input, Step
from torch_aio.kernels.gemm import Gemm, scratch_bytes
from torch_aio.kernels.gemv import MOST_ROWS, Gemv, GemvColumns, column_vectors
from torch_aio.kernels.matrix_epilogue import ACCUMULATOR
from torch_aio.kernels.pack_gemm import PackedPanels, PackPanels
from torch_aio.kernels.panel import panel_columns

TILES = [(isa, tile) for isa in ISAS for tile in isa.tile]
IDS = [f"{isa.name}-{rows}x{vectors}" for isa, (rows, vectors) in TILES]
EDGES = (1, 2, 5, 7, 8, 9, 12, 13, 15, 16, 17, 31, 33, 63, 65, 97)
TERMS = (0, 1, 3, 4, 7, 16, 17, 255, 256, 257, 769)
SIZES = [
    (m, n, TERMS[(i + j) % len(TERMS)])
    for i, m in enumerate(EDGES)
    for j, n in enumerate(EDGES)
    if (i + 2 * j) % 3 == 0
]

EVERYTHING = Chain(
    (Input("f32", "full"), Input("f32", "channel"), Input("f32", "row"), Input("f32", "scalar"),
     Input("f32", "full"), Input("bool", "full")),
    (Step("add", (0, 1), "f32"), Step("mul", (6, 2), "f32"), Step("sub", (7, 3), "f32"),
     Step("relu", (8,), "f32"), Step("add", (9, 4), "f32"),
     Step("where", (5, 10, Const(-1)), "f32")),
)  # fmt: skip
"""where(mask, relu((x + bias) * row - scalar) + residual, -1)."""


def strides(name, x):
    """The stride arguments of a batch [outer, inner, rows, columns]."""
    size = x.element_size()
    names = (f"{name}_outer", f"{name}_inner", f"{name}_row")
    return {n: s * size for n, s in zip(names, x.stride(), strict=False)}


def gemm(isa, tile, a, panels, c, n, chain=ACCUMULATOR, operands=None, splits=1, chunk=256):
    """C = A @ B for 4-d a and c, panels [outer, inner, panels, k, W]."""
    block = 24
    outer, inner, m, k = a.shape
    width = panel_columns(isa, tile)
    units = outer * inner * -(-m // block) * -(-n // width)
    tiles = torch.full((splits * scratch_bytes(isa, tile, block) // 4,), float("nan"))
    b = {key: value for key, value in strides("b", panels).items() if key != "b_row"}
    run_kernel(Gemm(tile, chain), isa, units, splits, a=a, **strides("a", a), b=panels, **b,
               c=c, **strides("c", c), m=m, n=n, k=k, inner=inner, chunk=chunk, block_rows=block,
               tiles=tiles, **(operands or {}))  # fmt: skip


@pytest.mark.parametrize(("isa", "tile"), TILES, ids=IDS)
def test_sizes_around_lanes_and_tiles(isa, tile):
    """Every size is as near to fp64 as eager, whatever the split and the chunk."""
    width = panel_columns(isa, tile)
    for number, (m, n, k) in enumerate(SIZES):
        a, b, c = torch.randn(m, k), torch.randn(k, n), torch.full((m, n), float("nan"))
        transposed = bool(number % 2)
        weight = b.t().contiguous() if transposed else b
        panels = PackedPanels(width, transposed)(weight)[None, None]
        gemm(isa, tile, a[None, None], panels, c[None, None], n, splits=(1, 2, 5)[number % 3],
             chunk=(256, 100)[number % 2])  # fmt: skip
        assert_close(c, a.double() @ b.double(), a @ b, f"{m}x{n}x{k}")


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_packing_step_writes_what_the_pack_function_does(isa, transposed):
    """Panels of strided matrices, zero past the last column."""
    tile = isa.tile[-1]
    width = panel_columns(isa, tile)
    for k, n in ((0, 3), (1, 1), (15, 33), (16, 16), (17, 64), (40, 65)):
        whole = torch.randn(2, n if transposed else k, 3, (k if transposed else n) + 2)
        x = whole.transpose(1, 2)[..., 1:-1]
        panels = torch.full((2, 3, -(-n // width), k, width), float("nan"))
        source = {**strides("x", x), "x": (whole, 4)}
        units = 6 * panels.shape[2]
        run_kernel(PackPanels(tile[1], transposed), isa, units, 2, **source, y=panels, k=k, n=n,
                   inner=3)  # fmt: skip
        torch.testing.assert_close(panels, PackedPanels(width, transposed)(x), rtol=0, atol=0)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_batches_strides_and_epilogue(isa):
    """Strided A, broadcast B, every access kind of the epilogue, a strided C."""
    tile, (outer, inner, m, n, k) = isa.tile[0], (2, 3, 19, 37, 300)
    width = panel_columns(isa, tile)
    a = torch.randn(outer, m, inner, k + 5)[..., :k].transpose(1, 2)
    b = torch.randn(1, inner, k, n).expand(outer, -1, -1, -1)
    panels = PackedPanels(width)(b[:1]).expand(outer, -1, -1, -1, -1)
    bias, row, scalar = torch.randn(n), torch.randn(outer, 1, m, 1), torch.randn(1)
    residual, mask = torch.randn(inner, m, n), torch.rand(outer, inner, m, n) > 0.3
    c = torch.full((outer, m, inner, n), float("nan")).transpose(1, 2)
    full = residual.expand(outer, -1, -1, -1)
    rows = row.expand(-1, inner, -1, -1)
    operands = {
        "e1": bias, "e1_outer": 0, "e1_inner": 0, "e2": row, **strides("e2", rows), "e3": scalar,
        "e4": residual, **strides("e4", full), "e5": mask, **strides("e5", mask),
    }  # fmt: skip
    gemm(isa, tile, a, panels, c, n, EVERYTHING, operands, splits=5)

    def expected(dtype):
        product = a.to(dtype) @ b.to(dtype)
        return torch.where(mask, ((product + bias) * row - scalar).relu() + residual, -1.0)

    assert_close(c, expected(torch.float64), expected(torch.float32))


def few(isa, kernel, x, w, y, splits=1):
    """y = x @ w by ``Gemv`` (w [.., n, k]) or ``GemvColumns``, 4-d operands."""
    by_columns = isinstance(kernel, GemvColumns)
    k, n = x.shape[-1], w.shape[-1 if by_columns else -2]
    columns = isa.lanes(f32) * (column_vectors(isa, kernel.rows) if by_columns else 1)
    units = x.shape[0] * x.shape[1] * -(-n // columns)
    run_kernel(kernel, isa, units, splits, x=x, **strides("x", x), w=w, **strides("w", w), y=y,
               **strides("y", y), n=n, k=k, inner=x.shape[1])  # fmt: skip


@pytest.mark.parametrize("by_columns", [False, True])
@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_few_rows(isa, by_columns):
    """Up to four rows, w as it lies, batches with w shared by the inner ones."""
    for number, (m, n, k) in enumerate(SIZES):
        rows = 1 + m % MOST_ROWS
        x, w = torch.randn(2, 3, rows, k), torch.randn(2, 1, k, n).expand(-1, 3, -1, -1)
        stored = w if by_columns else w[:, :1].mT.contiguous().expand(-1, 3, -1, -1)
        y = torch.full((2, rows, 3, n), float("nan")).transpose(1, 2)
        kernel = (GemvColumns if by_columns else Gemv)(rows)
        few(isa, kernel, x, stored, y, splits=(1, 2, 5)[number % 3])
        assert_close(y, x.double() @ w.double(), x @ w, f"{rows}x{n}x{k}")


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_non_finite_values_reach_what_depends_on_them(isa):
    """NaN and inf in A and B; 0 * inf is NaN; neighbours stay clean."""
    tile = isa.tile[0]
    a, b = torch.randn(14, 40), torch.randn(40, 33)
    a[3, 5], a[13, 0], b[7, 32], b[0, 2] = float("nan"), float("inf"), float("-inf"), 0.0
    c = torch.zeros(14, 33)
    panels = PackedPanels(panel_columns(isa, tile))(b)[None, None]
    gemm(isa, tile, a[None, None], panels, c[None, None], 33)
    torch.testing.assert_close(c, a @ b, equal_nan=True)
    y = torch.zeros(1, 33)
    few(isa, GemvColumns(1), a[None, None, 13:], b[None, None], y[None, None])
    torch.testing.assert_close(y, a[13:] @ b, equal_nan=True)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_nothing_outside_the_tensors_is_touched(isa):
    """Operands that end before an inaccessible page."""
    m, n, k, tile = 13, 35, 19, isa.tile[0]
    width = panel_columns(isa, tile)
    a, b, c = guarded(torch.randn(m, k)), guarded(torch.randn(k, n)), guarded(torch.zeros(m, n))
    want, w = a @ b, guarded(b.t())
    panels = guarded(torch.zeros(1, 1, -(-n // width), k, width))
    for transposed, x in ((False, b), (True, w)):
        run_kernel(PackPanels(tile[1], transposed), isa, panels.shape[2], 1, x=x, x_outer=0,
                   x_inner=0, x_row=x.stride(0) * 4, y=panels, k=k, n=n, inner=1)  # fmt: skip
        residual = guarded(torch.randn(m, n))
        add = Chain((Input("f32", "full"),) * 2, (Step("add", (0, 1), "f32"),))
        gemm(isa, tile, a[None, None], panels, c[None, None], n, add,
             {"e1": residual, **strides("e1", residual[None, None])})  # fmt: skip
        torch.testing.assert_close(c, want + residual)
    for kernel, x in ((Gemv(3), w), (GemvColumns(3), b)):
        y = guarded(torch.zeros(3, n))
        few(isa, kernel, a[None, None, -3:], x[None, None], y[None, None])
        torch.testing.assert_close(y, want[-3:])


@pytest.mark.parametrize("stored", ["f16", "bf16"])
@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_rows_of_half_precision_weights_widen_as_they_are_read(isa, stored):
    """Exactly as the same numbers in f32, around the lanes, up to the end of memory."""
    dtype = {"f16": torch.float16, "bf16": torch.bfloat16}[stored]
    for k in (1, 15, 33, 70):
        x, w = guarded(torch.randn(1, k)), guarded(torch.randn(19, k).to(dtype))
        same, y = torch.zeros(1, 19), torch.zeros(1, 19)
        few(isa, Gemv(1, stored=stored), x[None, None], w[None, None], y[None, None])
        few(isa, Gemv(1), x[None, None], w.float()[None, None], same[None, None])
        assert torch.equal(y, same)
