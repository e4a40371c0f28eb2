"""Direct convolution in the blocked layout against fp64, and what groups are copied by."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass

import pytest
import torch
from torch.nn.functional import conv2d, pad

import blocked
from kernel_runner import ISAS, jit, run_kernel
from torch_aio.codegen.isa import AVX2, AVX512, NEON
from torch_aio.codegen.types import f32
from torch_aio.kernels.blocked import ACCUMULATOR
from torch_aio.kernels.channels import GatherChannels
from torch_aio.kernels.conv import OVERREAD, Conv
from torch_aio.kernels.conv_tiles import EVEN_TILES, PLANAR_TILES, TILES, tiles_for
from torch_aio.kernels.pack_conv import ChannelTable, PackConv, TakeTable, pixel_table
from torch_aio.kernels.spec import generate

BEST = {name: next(iter(tiles)) for name, tiles in TILES.items()}
EPS = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Case:
    """A convolution and how it is run."""

    inputs: int
    outputs: int
    plane: tuple[int, int, int]
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    splits: int = 1
    planar: int = 0
    """Taps a step of the planar kernel; 0: blocked input."""


CASES = [
    Case(1, 1, (1, 1, 1)),
    Case(3, 7, (2, 5, 3), splits=2),
    Case(16, 64, (1, 17, 19), splits=5),
    Case(33, 17, (1, 7, 7), (1, 1), padding=(0, 0), splits=2),
    Case(64, 33, (3, 4, 4), (1, 1), (2, 2), (0, 0), splits=5),
    Case(17, 32, (2, 9, 14), stride=(2, 1), splits=2),
    Case(9, 15, (1, 8, 12), (5, 5), padding=(2, 2)),
    Case(8, 16, (1, 10, 9), padding=(2, 3), dilation=(2, 3)),
    Case(64, 128, (1, 1, 19), (1, 3), (1, 2), (0, 2), (1, 2)),
    Case(64, 96, (1, 6, 6), groups=2, splits=2),
    Case(48, 16, (2, 3, 5), (3, 1), padding=(1, 0), groups=1),
    Case(200, 8, (1, 2, 2), (1, 1), padding=(0, 0)),
    Case(24, 48, (2, 7, 7), (1, 1), padding=(0, 0), splits=3),
    Case(40, 72, (1, 1, 61), (1, 1), padding=(0, 0), splits=2),
    Case(3, 64, (1, 19, 17), (7, 7), (2, 2), (3, 3), planar=7, splits=2),
    Case(3, 9, (2, 6, 11), padding=(1, 1), dilation=(1, 2), planar=3, splits=5),
    Case(1, 33, (2, 1, 70), (1, 24), (1, 5), (0, 0), planar=8),
]


def vectors_of(case: Case, isa) -> int:
    """Output vectors a group, in whole blocks: padding lanes are written too."""
    blocks = math.ceil(case.outputs / case.groups / isa.block)
    return blocks * isa.block // isa.lanes(f32)


def units_of(case: Case, spec: Conv, vectors: int, pixels: int, batch: int, panels_a_unit: int):
    panels = math.ceil(vectors / spec.tile[1]) * case.groups
    return math.ceil(panels / panels_a_unit) * batch * (pixels // spec.tile[0])


def source_of(isa, case: Case, x, behind: int):
    """The input in memory: pointer, byte strides (batch, block, row, pixel), channels a block."""
    if case.planar:
        padded = blocked.guarded(
            tuple(pad(x, (case.padding[1],) * 2 + (case.padding[0],) * 2).shape)
        )
        padded.copy_(pad(x, (case.padding[1],) * 2 + (case.padding[0],) * 2))
        return padded, [s * 4 for s in padded.stride()], 1
    source = blocked.blocked(x, isa.block, *case.padding, behind)
    return source.storage, [*source.strides("x").values(), isa.block * 4], isa.block


def run(isa, case: Case, tile, x, weight, chain=ACCUMULATOR, merged=True, even=False, **operands):
    memory = source_of(isa, case, x, OVERREAD if even else 0)
    x_memory, (x_batch, x_block, x_row, x_pixel), c_in = memory
    options = (None, case.stride, case.padding, case.dilation, case.groups)
    n, outputs, height, width = conv2d(x, weight, *options).shape
    y = blocked.empty((n, outputs, height, width), isa.block, 1, 2)
    y_batch, y_block, y_row = y.strides("y").values()
    apart = case.stride[1] * x_pixel
    spec = Conv(tile, case.planar, case.dilation[1] if case.planar else 1, apart if even else 0,
                bool(outputs % isa.block), chain)  # fmt: skip
    images = n if merged else 1
    is_dense = case.stride[0] * x_row == width * apart
    pixels = width * (height if is_dense else 1) if even else images * height * width
    strides = [x_batch, case.stride[0] * x_row, case.stride[1] * x_pixel,
               y_batch, y_row, isa.block * 4]  # fmt: skip
    for operand in operands.get("full", ()):
        batch, _, row = operand.strides("e").values()
        strides += [batch, row, isa.block * 4]
    form = (tile[0], pixels, int(even and case.planar > 0))
    table = torch.from_numpy(pixel_table(*form, images, height, width, *strides))
    extra = blocked.operands(isa.block, rows=False, **operands) if operands else {}
    batch, taps = 1 if merged else n, case.planar or 1
    panels, vectors = 1 + case.splits % 2, vectors_of(case, isa)
    run_kernel(spec, isa, units_of(case, spec, vectors, table.shape[1], batch, panels),
               case.splits, x=x_memory, x_batch=x_batch, x_block=x_block,
               tap_row=case.dilation[0] * x_row, tap_column=case.dilation[1] * x_pixel * taps,
               w=PackConv(case.groups, isa.block, c_in, tile[1] * isa.lanes(f32))(weight),
               y=y.pointer, y_batch=y_batch, y_block=y_block, table=table, batch=batch,
               pixels=table.shape[1], channels=outputs, groups=case.groups,
               in_blocks=-(-case.inputs // case.groups // c_in),
               last_terms=(case.inputs // case.groups - 1) % c_in + 1, out_vectors=vectors,
               kernel_h=case.kernel[0], kernel_w=case.kernel[1] // taps,
               chunk=8 if case.planar else 2, panels_a_unit=panels, tiles_a_block=3,
               prefetch=case.splits % 2,
               **extra)  # fmt: skip
    return y.logical()


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_conv_is_as_near_to_fp64_as_eager(isa, case):
    """Every tile, images in the pixel table or in the units.

    No byte outside the input is read but what even tiles may; that is NaN and leaves no trace.
    """
    x = torch.randn(case.plane[0], case.inputs, *case.plane[1:])
    weight = torch.randn(case.outputs, case.inputs // case.groups, *case.kernel)
    options = (None, case.stride, case.padding, case.dilation, case.groups)
    want = conv2d(x.double(), weight.double(), *options)
    scale = want.abs().max()
    eager = ((conv2d(x, weight, *options) - want).abs().max() / scale).item()
    even = (PLANAR_TILES if case.planar else EVEN_TILES)[isa.name]
    fitting = [t for t in even if not case.planar or t[0] <= want.shape[3]]
    tiles = [*((t, False) for t in TILES[isa.name]), *((t, True) for t in fitting)]
    for (tile, is_even), merged in itertools.product(tiles, (True, False)):
        y = run(isa, case, tile, x, weight, merged=merged, even=is_even)
        assert ((y - want).abs().max() / scale).item() <= max(2 * eager, 8 * EPS)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("case", [CASES[3], CASES[5]], ids=str)
def test_epilogue_keeps_padding_zero(isa, case):
    """sigmoid(conv + bias) + a, times b: f(0) is not 0, and padding lanes still are."""
    x = torch.randn(case.plane[0], case.inputs, *case.plane[1:])
    weight, bias = torch.randn(case.outputs, case.inputs, *case.kernel), torch.randn(case.outputs)
    plain = conv2d(x, weight, bias, case.stride, case.padding)
    a, b = torch.randn_like(plain), torch.randn_like(plain)
    full = (blocked.blocked(a, isa.block, 0, 3), blocked.blocked(b, isa.block))
    y = run(isa, case, BEST[isa.name], x, weight, blocked.SIGMOID_ADD, bias=bias, full=full)
    torch.testing.assert_close(y, (plain.sigmoid() + a) * b)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_non_finite_values_stay_in_their_group_and_out_of_padding(isa):
    for case in (Case(64, 64, (1, 5, 6), groups=2), Case(7, 9, (1, 5, 6))):
        x = torch.randn(1, case.inputs, 5, 6)
        weight = torch.randn(case.outputs, case.inputs // case.groups, 3, 3)
        x[0, 3, 2, 1], x[0, 5, 4, 5], x[0, 1, 0, 0] = float("nan"), float("inf"), 1e-41
        y = run(isa, case, BEST[isa.name], x, weight)
        want = conv2d(x, weight, None, 1, 1, 1, case.groups)
        torch.testing.assert_close(y, want, equal_nan=True, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
@pytest.mark.parametrize(
    ("kind", "outer", "inner"), [("pad", 3, 5), ("unpad", 3, 5), ("repeat", 6, 3)]
)
def test_gather_channels_follows_its_table(isa, kind, outer, inner):
    wide = -(-inner // isa.block) * isa.block
    channels = {"pad": outer * inner, "unpad": outer * wide, "repeat": outer}[kind]
    x = torch.randn(2, channels, 3, 5)
    grouped = x.reshape(2, outer, -1, 3, 5)
    want = {
        "pad": pad(grouped, (0, 0, 0, 0, 0, wide - inner)).flatten(1, 2),
        "unpad": grouped[:, :, :inner].flatten(1, 2),
        "repeat": x.repeat_interleave(inner, 1),
    }[kind]
    source, y = blocked.blocked(x, isa.block, 1, 0), blocked.empty(tuple(want.shape), isa.block)
    strides = source.strides("x0")
    table = torch.from_numpy(ChannelTable(kind, isa.block)(outer, inner, strides.pop("x0_block")))
    blocks = y.storage.shape[1]
    assert table.numel() == blocks * isa.block
    run_kernel(GatherChannels(masked=True), isa, 2 * blocks * 3, 2, x0=source.pointer, **strides,
               table=table, y=y.pointer, **y.strides("y"), channels=want.shape[1], blocks=blocks,
               height=3, width=5)  # fmt: skip
    assert torch.equal(y.logical(), want)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)
def test_take_channels_reads_several_tensors(isa):
    """Channels across block borders, repeated and left out, of sources with and without a halo."""
    a, b = torch.randn(2, 19, 3, 5), torch.randn(2, 7, 3, 5)
    order = [25, 0, 18, 19, 3, 3, *range(24, 2, -1)]
    sources = (blocked.blocked(a, isa.block, 1, 0), blocked.blocked(b, isa.block))
    arguments, apart = {}, []
    for n, source in enumerate(sources):
        arguments |= {f"x{n}": source.pointer, **source.strides(f"x{n}")}
        apart.append(arguments.pop(f"x{n}_block"))
    table = torch.from_numpy(TakeTable(tuple(order), (19, 7), isa.block)(*apart))
    y = blocked.empty((2, len(order), 3, 5), isa.block, 2, 1)
    blocks = y.storage.shape[1]
    run_kernel(GatherChannels(2, masked=True), isa, 2 * blocks * 3, 3, table=table, y=y.pointer,
               **y.strides("y"), channels=len(order), blocks=blocks, height=3, width=5,
               **arguments)  # fmt: skip
    assert torch.equal(y.logical(), torch.cat([a, b], 1)[:, order])


@pytest.mark.parametrize("isa", [AVX2, AVX512, NEON], ids=lambda isa: isa.name)
def test_the_register_tile_does_not_spill(isa):
    """Vector registers do not go to the stack inside the product, on machines we lack as well.

    Two of the 30 that 14x2 needs do, in 112 products.
    """
    step = isa.block * 4
    specs = [Conv(t) for t in TILES[isa.name]] + [Conv(t, step=step) for t in EVEN_TILES[isa.name]]
    for spec in specs:
        text = jit(isa).assembly(generate(spec, isa))
        product = max(text.split("\n.LBB"), key=lambda part: len(re.findall("vfmadd|fmla", part)))
        stack = "(%rsp)" if isa is not NEON else "[sp"
        lines = [line for line in product.splitlines() if stack in line]
        spilled = [line for line in lines if re.search(r"[yz]mm|\tq\d", line)]
        assert len(spilled) <= (2 if spec.tile == (14, 2) else 0)


def test_tiles_waste_little():
    """Even tiles where their pixels fit the run and their vectors the channels, else by table."""
    tiles, even = TILES["avx512"], EVEN_TILES["avx512"]
    assert tiles_for(tiles, even, 196, 196, 2)[0] == ((14, 2), True)
    assert tiles_for(tiles, even, 9, 9, 6)[0] == ((9, 3), True)
    assert tiles_for(tiles, {(12, 2): 0.9}, 12, 12, 4)[0] == ((6, 4), False)
    for vectors in range(1, 65):
        best, _ = tiles_for(TILES["avx2"], {}, 49, 1, vectors)[0]
        assert best == ((8, 1) if vectors == 1 else (6, 2))
