"""The table of operators: one case or more for each row of ``torch_aio.plan.rows.ROWS``.

A case is a function of tensors and weights; ``inputs(n)`` makes the tensors, ``n`` being the size
that varies between calls (0 and 1 included).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

aten = torch.ops.aten


@dataclass(frozen=True)
class Case:
    """One operator with one choice of arguments."""

    name: str
    apply: Callable[..., Tensor]
    inputs: Callable[[int], tuple[Tensor, ...]]
    weights: tuple[tuple[int, ...], ...] = ()
    least: int = 0  # the smallest n that eager takes, and ours claims
    varies: bool = True  # whether it is claimed where n is not known

    def __str__(self) -> str:
        return self.name


def floats(*shape: int) -> Tensor:
    return torch.randn(shape)


def integers(*shape: int, limit: int = 9) -> Tensor:
    return torch.randint(0, limit, shape)


def mask(*shape: int) -> Tensor:
    return torch.rand(shape) < 0.5


def row(n: int) -> tuple[Tensor]:
    return (floats(n, 17),)


def positive(n: int) -> tuple[Tensor]:
    return (floats(n, 17).abs() + 0.5,)


def whole(n: int) -> tuple[Tensor]:
    return (integers(n, 17) - 4,)


def pair(n: int) -> tuple[Tensor, Tensor]:
    return floats(n, 17), floats(17)


def cube(n: int) -> tuple[Tensor]:
    return (floats(2, n, 17),)


def planes(n: int) -> tuple[Tensor]:
    return (floats(n, 20, 9, 7),)


def volumes(n: int) -> tuple[Tensor]:
    return (floats(n, 20, 5, 6, 7),)


def lines(n: int) -> tuple[Tensor]:
    return (floats(n, 20, 19),)


def heads(n: int) -> tuple[Tensor, Tensor, Tensor]:
    return floats(2, 3, n, 16), floats(2, 3, 9, 16), floats(2, 3, 9, 16)


def unary(*names: str, inputs: Any = row) -> tuple[Case, ...]:
    """``torch.name(x)`` or ``F.name(x)``."""
    return tuple(
        Case(name, getattr(torch, name, None) or getattr(F, name), inputs) for name in names
    )


ELEMENTWISE: tuple[Case, ...] = (
    *unary(*"relu sigmoid tanh exp exp2 expm1 erf sin cos neg abs sign floor ceil trunc".split()),
    *unary(*"round isnan isinf silu gelu hardswish hardsigmoid mish leaky_relu elu".split()),
    *unary(*"softplus hardtanh relu6".split()),
    *unary(*"log log2 log10 log1p sqrt rsqrt reciprocal".split(), inputs=positive),
    *unary(*"add sub mul div maximum minimum eq ne lt le gt ge".split(), inputs=pair),
    *unary(*"abs neg sign".split(), inputs=whole),
    *unary("logsigmoid", "isfinite"),
    *unary(*"fmod remainder".split(), inputs=lambda n: (floats(n, 17) * 4, positive(n)[0])),
    *unary("pow", inputs=lambda n: (positive(n)[0], floats(17))),
    *unary("addcmul", "addcdiv", inputs=lambda n: (*pair(n), positive(n)[0])),
    Case("remainders", lambda x: x.remainder(3) + x.fmod(2.5), row),
    Case("power of a number", lambda x: 2.5**x, row),
    Case("lerp", lambda a, b: torch.lerp(a, b, 0.3), lambda n: (floats(n, 17), floats(n, 17))),
    Case("threshold", lambda x: F.threshold(x, 0.1, 20.0), row),
    *unary("bitwise_not", inputs=whole),
    *unary("logical_not", "bitwise_not", inputs=lambda n: (mask(n, 17),)),
    *unary(
        *"logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor".split(),
        inputs=lambda n: (mask(n, 17), mask(17)),
    ),
    *unary(
        *"bitwise_and bitwise_or bitwise_xor".split(),
        inputs=lambda n: (integers(n, 17), integers(n, 1)),
    ),
    Case("bits of a number", lambda x: ((x & 3) | 8) ^ 5, whole),
    Case("gelu tanh", lambda x: F.gelu(x, approximate="tanh"), row),
    Case("numbers", lambda x: (2 - (x + 1.5)) * 3 / 7, row),
    Case("compare numbers", lambda x: (x < 1) | (x >= 2) | (x == 0.5) | ((x > 3) & (x <= 5)), row),
    Case("not equal", lambda x: x != 2, whole),
    Case("add alpha", lambda a, b: torch.add(a, b, alpha=2), pair),
    Case("mixed dtypes", lambda a, b: a * b + 1, lambda n: (integers(n, 17), floats(n, 1))),
    Case("integer sums", lambda a, b: a * b - a, lambda n: (integers(n, 17), integers(17))),
    Case("int32 and int64", lambda a, b: a + b, lambda n: (integers(n, 17).int(), integers(17))),
    Case("bool and float", lambda a, b: a + b, lambda n: (mask(n, 17), floats(17))),
    Case("true division", lambda x: x / 3, whole),
    Case("floor division", lambda x: x // 3, whole),
    Case("trunc division", lambda x: torch.div(x, 3, rounding_mode="trunc"), whole),
    Case("floor of floats", lambda x: torch.div(x, 2.0, rounding_mode="floor"), row),
    Case("clamp", lambda x: x.clamp(-0.5, 0.5) + x.clamp(min=0) + x.clamp(max=0), row),
    Case("powers", lambda x: x**2 + x**3 + x**0.5 + x**-1 + x**-0.5 + x**1.7, positive),
    Case("where", torch.where, lambda n: (mask(n, 1), *pair(n))),
    Case("where number", lambda m, a: torch.where(m, a, 0.0), lambda n: (mask(17), *row(n))),
    Case("masked_fill", lambda x, m: x.masked_fill(m, -1e9), lambda n: (*row(n), mask(n, 17))),
    Case("masked_fill tensor", lambda x, m, v: x.masked_fill(m, v),
         lambda n: (*row(n), mask(n, 17), floats())),
    Case("cast", lambda x: x.long().float() + x.int() + x.bool(), row),
    Case("cast integers", lambda x: x.float().to(torch.int32) + 1, whole),
    Case("clone", lambda x: x.clone() + 1, row),
    Case("scalars", lambda x, y: torch.tanh(x * y) + 1, lambda n: (floats(), floats())),
    Case("four dimensions", lambda a, b: a * b, lambda n: (floats(n, 3, 5, 9), floats(3, 1, 9))),
)  # fmt: skip

VIEWS: tuple[Case, ...] = (
    Case("view", lambda x: x.reshape(-1) + 1, row),
    Case("reshape of a transpose", lambda x: x.transpose(0, 1).reshape(-1) * 2, row),
    Case("split a dimension", lambda x: x.unflatten(1, (17, 1)).mul(2).flatten(1) + 1, row),
    Case("flatten", lambda x: x.flatten(1) + 1, cube),
    Case("unsqueeze", lambda x: x.unsqueeze(1) * x, row),
    Case("squeeze", lambda x: x.squeeze(1) + 1, lambda n: (floats(n, 1, 5),)),
    Case("squeeze all", lambda x: x.squeeze() + 1, lambda n: (floats(3, 1, 5),)),
    Case("permute", lambda x: x.permute(2, 0, 1) + 1, cube),
    Case("transpose", lambda x: x.transpose(-1, 0) * 2, cube),
    Case("t", lambda x: x.t() * 2, row),
    Case("expand", lambda x: x.expand(4, -1, -1) + 1, lambda n: (floats(1, n, 5),)),
    Case("slice", lambda x: x[:, 2:-1:3] + 1, row),
    Case("slices", lambda x: x[-3:, -100:100:2] + 1, row),
    Case("slice of n", lambda x: x[1:] + 1, row),
    Case("select", lambda x: x[:, -2] + x[:, 0], row),
    Case("chunks", lambda x: x.chunk(3, -1)[1] + x.split(6, -1)[0], row),
    Case("detach", lambda x: x.detach() + 1, row),
)

PRODUCTS: tuple[Case, ...] = (
    Case("linear", F.linear, row, ((40, 17), (40,))),
    Case("linear rows", F.linear, lambda n: (floats(2, n, 17),), ((5, 17),)),
    Case("linear vector", F.linear, lambda n: (floats(17),), ((40, 17),)),
    Case("linear gelu", lambda x, w, b: F.gelu(F.linear(x, w, b)) + 1, row, ((33, 17), (33,))),
    Case("matmul", torch.matmul, row, ((17, 9),)),
    Case("matmul values", torch.matmul, lambda n: (floats(n, 17), floats(17, n))),
    Case("matmul batches", torch.matmul, lambda n: (floats(2, 3, n, 8), floats(3, 8, 17))),
    Case("matmul transposed", lambda a, b: a @ b.transpose(-1, -2),
         lambda n: (floats(2, n, 8), floats(2, 9, 8))),
    Case("mm", torch.mm, lambda n: (floats(n, 16), floats(16, 33))),
    Case("bmm", torch.bmm, lambda n: (floats(n, 3, 16), floats(n, 16, 5))),
    Case("mv", torch.mv, lambda n: (floats(n, 16), floats(16))),
    Case("vector times matrix", torch.matmul, lambda n: (floats(16), floats(16, n))),
    Case("dot", torch.dot, lambda n: (floats(17), floats(17))),
    Case("addmm", lambda x, b, w: torch.addmm(b, x, w, beta=2, alpha=0.5), row, ((9,), (17, 9))),
    Case("baddbmm", torch.baddbmm, lambda n: (floats(2, n, 5), floats(2, n, 9), floats(2, 9, 5))),
    Case("einsum", lambda a, b: torch.einsum("bij,bkj->bik", a, b),
         lambda n: (floats(2, n, 8), floats(2, 9, 8))),
)  # fmt: skip


def shuffled(x: Tensor, w: Tensor) -> Tensor:
    """A convolution beside its input, their channels in turn."""
    n, c, height, width = x.shape
    both = torch.cat([x, F.conv2d(x, w)], 1).view(n, 2, c, height, width)
    return both.transpose(1, 2).reshape(n, 2 * c, height, width)


def conv2d(**options: Any) -> Callable[..., Tensor]:
    return lambda x, w, *b: F.conv2d(x, w, *b, **options)


CONVOLUTIONS: tuple[Case, ...] = (
    Case("conv2d 3x3", conv2d(padding=1), planes, ((17, 20, 3, 3), (17,))),
    Case("conv2d 1x1", conv2d(), planes, ((33, 20, 1, 1),)),
    Case("conv2d stride", conv2d(stride=2, padding=(2, 1)), planes, ((8, 20, 5, 3), (8,))),
    Case("conv2d dilation", conv2d(dilation=2, padding=2), planes, ((8, 20, 3, 3),)),
    Case("conv2d groups", conv2d(groups=4, padding=1), planes, ((8, 5, 3, 3), (8,))),
    Case("conv2d depthwise", conv2d(groups=20, padding=1), planes, ((20, 1, 3, 3), (20,))),
    Case("channel shuffle", shuffled, planes, ((20, 20, 1, 1),)),
    Case("conv2d multiplier", conv2d(groups=20), planes, ((40, 1, 3, 3),)),
    Case("conv2d same", conv2d(padding="same"), planes, ((8, 20, 3, 3), (8,))),
    Case("conv2d even", conv2d(padding="same"), planes, ((8, 20, 2, 4), (8,))),
    Case("conv1d even", lambda x, w: F.conv1d(x, w, padding="same"), lines, ((9, 20, 4),)),
    Case("conv2d first layer", conv2d(stride=2, padding=3), lambda n: (floats(n, 3, 19, 21),),
         ((16, 3, 7, 7), (16,))),
    Case("conv2d relu", lambda x, w, b: F.conv2d(x, w, b, padding=1).relu(), planes,
         ((20, 20, 3, 3), (20,))),
    Case("conv1d to one number", lambda x, w: x.sign() + F.conv1d(x, w),
         lambda n: (floats(n, 3, 1),), ((1, 3, 1),)),
    Case("conv2d residual", lambda x, w: (F.conv2d(x, w, padding=1) + x).relu(), planes,
         ((20, 20, 3, 3),)),
    Case("conv1d", lambda x, w, b: F.conv1d(x, w, b, 2, 1), lines, ((9, 20, 3), (9,))),
    Case("conv1d depthwise", lambda x, w: F.conv1d(x, w, None, 1, 2, 1, 20), lines, ((20, 1, 5),)),
    Case("conv1d same", lambda x, w: F.conv1d(x, w, padding="same"), lines, ((9, 20, 3),)),
    Case("conv1d long", lambda x, w: F.conv1d(x, w, stride=4), lambda n: (floats(1, 1, n + 10),),
         ((9, 1, 10),)),
    Case("convolution", lambda x, w: torch.convolution(
            x, w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1),
         planes, ((8, 20, 3, 3),)),
    Case("batch_norm", lambda x, m, v: F.batch_norm(x, m, v.abs() + 1), planes, ((20,), (20,))),
    Case("conv2d batch_norm", lambda x, w, m, v: F.batch_norm(F.conv2d(x, w), m, v.abs() + 1),
         planes, ((16, 20, 3, 3), (16,), (16,))),
)  # fmt: skip


def transposed(rank: int, **options: Any) -> Callable[..., Tensor]:
    return lambda x, w, *b: getattr(F, f"conv_transpose{rank}d")(x, w, *b, **options)


def conv3d(**options: Any) -> Callable[..., Tensor]:
    return lambda x, w, *b: F.conv3d(x, w, *b, **options)


VOLUMES: tuple[Case, ...] = (
    Case("conv_transpose2d", transposed(2, stride=2), planes, ((20, 17, 2, 2), (17,))),
    Case("conv_transpose2d odd", transposed(2, stride=(3, 2), padding=1, output_padding=(2, 1)),
         planes, ((20, 9, 3, 4), (9,)), varies=False),
    Case("conv_transpose2d gaps", lambda x, w, b: (F.conv_transpose2d(x, w, b, 3) + 1).sigmoid(),
         planes, ((20, 9, 2, 2), (9,)), varies=False),
    Case("conv_transpose2d groups", transposed(2, groups=4, dilation=2, padding=1, stride=2),
         planes, ((20, 3, 3, 3),)),
    Case("conv_transpose2d residual",
         lambda x, w: (F.conv_transpose2d(x, w, None, 2, 1, 1) + F.interpolate(x, scale_factor=2)
                       ).relu(), planes, ((20, 20, 3, 3),)),
    Case("conv_transpose1d", transposed(1, stride=4, padding=2), lines, ((20, 9, 8), (9,))),
    Case("conv3d", conv3d(padding=1), volumes, ((17, 20, 3, 3, 3), (17,))),
    Case("conv3d residual", lambda x, w: (F.conv3d(x, w, padding=1) + x).relu(), volumes,
         ((20, 20, 3, 3, 3),)),
    Case("conv3d stride", conv3d(stride=2, padding=(2, 0, 1)), volumes,
         ((8, 20, 5, 3, 3), (8,)), varies=False),
    Case("conv3d 1x1", conv3d(), volumes, ((9, 20, 1, 1, 1),), varies=False),
    Case("conv3d dilation", conv3d(dilation=2, padding=2), volumes, ((8, 20, 3, 3, 3),),
         varies=False),
    Case("conv3d groups", conv3d(groups=4, padding=1, stride=(2, 1, 1)), volumes,
         ((8, 5, 3, 3, 3), (8,)), varies=False),
    Case("conv3d even", conv3d(padding="same"), volumes, ((8, 20, 2, 3, 4),), varies=False),
    Case("conv3d one channel", conv3d(padding=1), lambda n: (floats(n, 1, 5, 6, 7),),
         ((8, 1, 3, 3, 3),)),
    Case("conv3d of n images", conv3d(padding=1), lambda n: (floats(2, 20, n, 6, 7),),
         ((8, 20, 3, 3, 3),), 1),
    Case("conv_transpose3d", transposed(3, stride=2), volumes, ((20, 9, 2, 2, 2), (9,))),
    Case("conv_transpose3d odd", transposed(3, stride=2, padding=1, output_padding=1), volumes,
         ((20, 9, 3, 3, 3),), varies=False),
    Case("conv_transpose3d residual",
         lambda x, w: F.conv_transpose3d(x, w, None, 1, 1) * 2 + x, volumes, ((20, 20, 3, 3, 3),),
         varies=False),
    Case("max_pool3d", lambda x: F.max_pool3d(x, 3, 2, 1), volumes),
    Case("max_pool3d ceil", lambda x: F.max_pool3d(x, 2, 2, 1, 2, ceil_mode=True), volumes,
         varies=False),
    Case("avg_pool3d", lambda x: F.avg_pool3d(x, (3, 2, 3), 2, 1, divisor_override=5)
         + F.avg_pool3d(x, (3, 2, 3), 2, 1), volumes),
    Case("avg_pool3d bare", lambda x: F.avg_pool3d(
        x, 3, 2, 1, ceil_mode=True, count_include_pad=False), volumes, varies=False),
    Case("adaptive_avg_pool3d", lambda x: F.adaptive_avg_pool3d(x, (2, None, 3))
         + F.adaptive_avg_pool3d(x, 1), volumes),
    Case("avg_pool3d long", lambda x: F.avg_pool3d(x, (8, 1, 1)),
         lambda n: (floats(n, 3, 17, 2, 3),), varies=False),
    Case("nearest volumes", lambda x: F.interpolate(x, scale_factor=2), volumes),
    Case("nearest exact volumes", lambda x: F.interpolate(x, (7, 3, 4), mode="nearest-exact"),
         volumes, varies=False),
    Case("trilinear", lambda x: F.interpolate(x, scale_factor=2, mode="trilinear"), volumes),
    Case("cat of volumes", lambda x, w: F.silu(torch.cat([F.conv3d(x, w), x], 1)), volumes,
         ((16, 20, 1, 1, 1),)),
)  # fmt: skip

POOLS: tuple[Case, ...] = (
    Case("max_pool2d", lambda x: F.max_pool2d(x, 3, 2, 1), planes),
    Case("pools and padding lanes", lambda x: F.max_pool2d(F.max_pool2d(x, 3, 1, 1).cos() + x, 2),
         planes),
    Case("max_pool2d ceil", lambda x: F.max_pool2d(x, 2, 2, ceil_mode=True), planes),
    Case("max_pool2d dilated", lambda x: F.max_pool2d(x, 3, 1, 1, 2), planes),
    Case("avg_pool2d", lambda x: F.avg_pool2d(x, 3, 2, 1), planes),
    Case("avg_pool2d bare", lambda x: F.avg_pool2d(
        x, 3, 2, 1, ceil_mode=True, count_include_pad=False), planes),
    Case("adaptive_avg_pool2d", lambda x: F.adaptive_avg_pool2d(x, (1, 1)), planes),
    Case("adaptive_avg_pool2d 4x3", lambda x: F.adaptive_avg_pool2d(x, (4, 3)), planes),
    Case("max_pool1d", lambda x: F.max_pool1d(x, 3, 2), lines),
    Case("avg_pool1d", lambda x: F.avg_pool1d(x, 3, 2, 1), lines),
    Case("adaptive_avg_pool1d", lambda x: F.adaptive_avg_pool1d(x, 5), lines),
)  # fmt: skip

IMAGES: tuple[Case, ...] = (
    Case("pixel_shuffle", lambda x: F.pixel_shuffle(x, 2) + 1, planes),
    Case("pixel_unshuffle", lambda x: F.pixel_unshuffle(x, 2) + 1, lambda n: (floats(n, 3, 6, 8),),
         (), 1),
    Case("channel_shuffle", lambda x: F.channel_shuffle(x, 4) + 1, planes),
    Case("channel_shuffle native", lambda x: torch.native_channel_shuffle(x, 5) + 1, lines, (), 1,
         varies=False),
    Case("planes to a size", lambda x: (
        aten.upsample_nearest2d.default(x, [5, 9])
        + aten._upsample_nearest_exact2d.default(x, [5, 9])
        + aten.upsample_bilinear2d.default(x, [5, 9], False)
        + aten.upsample_bicubic2d.default(x, [5, 9], True)
    ), planes, varies=False),
    Case("lines to a size", lambda x: (
        aten.upsample_nearest1d.default(x, [7])
        + aten._upsample_nearest_exact1d.default(x, [7])
        + aten.upsample_linear1d.default(x, [7], False)
    ), lines, varies=False),
    Case("volumes to a size", lambda x: (
        aten.upsample_nearest3d.default(x, [5, 4, 3])
        + aten._upsample_nearest_exact3d.default(x, [5, 4, 3])
        + aten.upsample_trilinear3d.default(x, [5, 4, 3], True)
    ), volumes, varies=False),
    Case("nearest twice", lambda x: F.interpolate(x, scale_factor=2), planes),
    Case("nearest of n rows", lambda x: F.interpolate(x.relu(), scale_factor=2),
         lambda n: (floats(2, 20, n, 7),), (), 1),
    Case("nearest", lambda x: F.interpolate(x, scale_factor=1.7), planes),
    Case("nearest size", lambda x: F.interpolate(x, (5, 9)), planes),
    Case("nearest exact", lambda x: F.interpolate(x, (5, 12), mode="nearest-exact"), planes),
    Case("nearest lines", lambda x: F.interpolate(x, scale_factor=3), lines),
    Case("linear", lambda x: F.interpolate(x, scale_factor=2, mode="linear"), lines),
    Case("nearest exact lines", lambda x: F.interpolate(x, 7, mode="nearest-exact"), lines),
    Case("bilinear", lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), planes),
    Case("bilinear corners", lambda x: F.interpolate(
        x, (17, 5), mode="bilinear", align_corners=True), planes),
    Case("bicubic", lambda x: F.interpolate(x, scale_factor=1.5, mode="bicubic"), planes),
    Case("instance_norm", F.instance_norm, planes, (), 1),
    Case("instance_norm lines", lambda x, w, b: F.instance_norm(x, None, None, w, b), lines,
         ((20,), (20,)), 1),
    Case("instance_norm statistics",
         lambda x, m, v: F.instance_norm(x, m, v.abs() + 1, use_input_stats=False), planes,
         ((20,), (20,)), 1),
    Case("conv2d without a batch", lambda x, w: F.conv2d(x[0], w), planes, ((8, 20, 3, 3),), 1),
    Case("pools without a batch", lambda x: F.max_pool2d(F.avg_pool2d(x[0], 2), 2)
         + F.adaptive_avg_pool2d(x[0], (2, 1)), planes, (), 1),
)  # fmt: skip

ROWWISE: tuple[Case, ...] = (
    Case("softmax", lambda x: x.softmax(-1), cube),
    Case("softmax inner", lambda x: x.softmax(0), cube),
    Case("softmax n", lambda x: x.softmax(1), cube),
    Case("log_softmax", lambda x: x.log_softmax(-1), cube),
    Case("layer_norm", lambda x, w, b: F.layer_norm(x, (17,), w, b), row, ((17,), (17,))),
    Case("layer_norm bare", lambda x: F.layer_norm(x, (17,)) * 2, row),
    Case("layer_norm planes", lambda x: F.layer_norm(x, (9, 7)), planes),
    Case("group_norm", lambda x, w, b: F.group_norm(x, 5, w, b), planes, ((20,), (20,))),
    Case(
        "group_norm of images",
        lambda x, w, v, b: F.conv2d(F.silu(F.group_norm(F.conv2d(x, w), 4, v, b)), w),
        planes,
        ((20, 20, 1, 1), (20,), (20,)),
    ),
    Case(
        "instance_norm of volumes",
        lambda x, w, v: F.conv3d(F.leaky_relu(F.instance_norm(F.conv3d(x, w), None, None, v)), w),
        volumes,
        ((20, 20, 1, 1, 1), (20,)),
        1,
        varies=False,
    ),
    Case("rms_norm", lambda x, w: F.rms_norm(x, (17,), w, 1e-6), row, ((17,),)),
)

REDUCTIONS: tuple[Case, ...] = (
    *(
        Case(
            f"{name} {dims or 'all'}",
            lambda x, f=name, d=dims: getattr(x + 1, f)(*d),
            cube,
            least=1,
        )
        for name in ("sum", "mean", "amax", "amin")
        for dims in ((), (0,), (1,), (-1,), ((0, 2), True))
    ),  # of numbers around one: sums near zero measure cancellation
    Case("max values", lambda x: x.max(-1)[0] + x.min(-1).values, cube, least=1),
    Case("max of all", lambda x: x.max() - x.min(), cube, least=1),
    Case("sum of integers", lambda x: x.sum(0) + x.sum(), whole),
    Case("sum of a mask", lambda x: x.sum(-1), lambda n: (mask(n, 17),)),
    Case("prod", lambda x: x.prod(-1) + x.prod(), lambda n: (floats(n, 3) * 0.3,)),
    Case("any", lambda x: (x > 1).any(-1) | (x > 2).any(), row),
    Case("all", lambda x: (x > -1).all(0) & (x > -9).all(), row),
    Case("all of dims", lambda x: (x > -1).all((0, 2)), cube),
    Case("any of dims", lambda x: (x > 1).any((0, 2)), cube),
    Case("argmax", lambda x: x.argmax(-1) + x.argmin(-1), row, least=1),
    Case("places", lambda x: x.max(1)[1] + x.min(1).indices, row, least=1),
    Case("norm", lambda x: torch.linalg.vector_norm(x, 2, -1), cube),
    Case("var", lambda x: x.var(-1) + x.std(-1, False), cube, least=1),
    Case("var of n", lambda x: x.var((0, 1), correction=0) + x.std(), cube, (), 1, varies=False),
    Case("diff", lambda x: x.diff(dim=0, prepend=x[:1]) + x.diff(append=x[:, :1]), row),
    Case("cumsum", lambda x: x.cumsum(-1) + x.cumsum(0), row),
    Case("pooled mean", lambda x: x.mean((2, 3)), planes),
)

ATTENTION: tuple[Case, ...] = (
    Case("sdpa", F.scaled_dot_product_attention, heads),
    Case("sdpa mask", lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m),
         lambda n: (*heads(n), mask(2, 1, 1, 9) | (torch.arange(9) == 0))),
    Case("sdpa float mask", lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m),
         lambda n: (*heads(n), floats(n, 9))),
    Case("sdpa causal", lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
         lambda n: (floats(1, 2, n, 8),) * 1 + (floats(1, 2, n, 8), floats(1, 2, n, 8))),
    Case("sdpa scale", lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.3), heads),
    Case("sdpa grouped", lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
         lambda n: (floats(1, 4, n, 16), floats(1, 2, 9, 16), floats(1, 2, 9, 16))),
    Case("spelled out", lambda q, k, v: (q @ k.transpose(-1, -2) / 4).softmax(-1) @ v, heads),
)  # fmt: skip


def turns(n: int) -> tuple[Tensor, Tensor]:
    return floats(2, 3, n, 16), integers(2, n, limit=900)


def rope_of_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


ROTARY: tuple[Case, ...] = (
    Case("rope", lambda x, p: torch.ops.aio.rope(x, p, 1e4), turns),
    Case("rope of other heads", lambda x, p: torch.ops.aio.rope(x.transpose(1, 2), p[:1], 500),
         lambda n: (floats(2, n, 1, 18), integers(2, n))),
    Case("rope spelled out", lambda x, c, s: x * c + torch.cat((-x[..., 8:], x[..., :8]), -1) * s,
         lambda n: (floats(2, 3, n, 16), floats(n, 16), floats(n, 16))),
    Case("rope of halves", rope_of_halves, lambda n: (floats(3, n, 6), floats(n, 3), floats(n, 3))),
)  # fmt: skip

INDICES: tuple[Case, ...] = (
    Case("embedding", F.embedding, lambda n: (integers(n, 5),), ((9, 33),)),
    Case("embedding int32", F.embedding, lambda n: (integers(n).int(),),
         ((9, 8),)),
    Case("index_select", lambda x, i: torch.index_select(x, 1, i),
         lambda n: (*cube(9), integers(n))),
    Case("index", lambda x, i: x[i], lambda n: (floats(9, 17), integers(n) - 4)),
    Case("index second", lambda x, i: x[:, i], lambda n: (*cube(9), integers(n, 2))),
    Case("index both", lambda x, i, j: x[i, j],
         lambda n: (floats(9, 17), integers(n), integers(n, limit=17))),
    Case("gather", lambda x, i: x.gather(1, i), lambda n: (floats(n, 9), integers(n, 5))),
    *(
        Case(f"embedding_bag {mode}", lambda i, t, mode=mode: F.embedding_bag(i, t, mode=mode),
             lambda n: (integers(n, 5),), ((9, 77),), varies=False)
        for mode in ("sum", "mean", "max")
    ),
    Case("embedding_bag offsets", lambda i, w, t: F.embedding_bag(
            i, t, torch.zeros(3, dtype=i.dtype), mode="sum", per_sample_weights=w, padding_idx=-2),
         lambda n: (integers(n), floats(n)), ((9, 33),)),
    Case("take_along_dim", lambda x, i: x.take_along_dim(i, 1),
         lambda n: (floats(n, 9), integers(n, 5)), least=1, varies=False),
    Case("scatter", lambda x, i, y: x.scatter(1, i, y) + x.scatter(1, i, 2.5),
         lambda n: (floats(n, 17), integers(n, 5), floats(n, 7)), varies=False),
    Case("scatter_add", lambda x, i, y: x.scatter_add(0, i, y),
         lambda n: (floats(9, 17), integers(n, 5), floats(n, 7))),
    *(
        Case(f"scatter_reduce {kind}", lambda x, i, y, kind=kind: x.scatter_reduce(
                0, i, y, kind, include_self=kind < "b"),
             lambda n: (floats(9, 17), integers(n, 5), floats(n, 7)))
        for kind in ("sum", "prod", "amax", "amin")
    ),
    Case("index_add", lambda x, i, y: x.index_add(1, i, y),
         lambda n: (*cube(9), integers(n), floats(2, n, 17))),
    Case("index_copy", lambda x, y: x.index_copy(0, torch.arange(8, -1, -2), y),
         lambda n: (floats(9, n), floats(5, n))),
    Case("index_put", lambda x, i: x.index_put((i,), x.new_ones(())),
         lambda n: (floats(9, 17), integers(n) - 4)),
    Case("index_put accumulate", lambda x, i, y: torch.ops.aten.index_put(x, [None, i], y, True),
         lambda n: (*cube(9), integers(n), floats(2, n, 17))),
    Case("index_put mask", lambda x: x.index_put((x > 0,), x.new_ones(())), row),
    Case("slice_scatter", lambda x, y: x.slice_scatter(y, 1, 2, -3).select_scatter(x[:, 0], 1, -2),
         lambda n: (floats(n, 17), floats(n, 12))),
    Case("tril and triu", lambda x: x.tril(1) - x.triu(-3), lambda n: (floats(n, 9, 17),)),
    Case("cumsum of one", lambda x: x.sum().cumsum(0), row),
    Case("index_select of one", lambda x, i: x.sum().index_select(0, i * 0),
         lambda n: (*row(n), integers(1))),
    Case("max of bools", lambda x: (x > 0).max(1)[1] + (x > 0).min(1)[0], row, least=1),
    Case("cat", lambda a, b: torch.cat([a, b, a], 1), lambda n: (floats(n, 3), floats(n, 17))),
    Case("cat n", lambda a, b: torch.cat([a, b]), lambda n: (floats(n, 17), floats(3, 17))),
    Case("cat channels", lambda x: F.relu(torch.cat([F.max_pool2d(x, 3, 1, 1), x], 1)), planes),
    Case("stack", lambda a, b: torch.stack([a, b], 1), lambda n: (floats(n, 17), floats(n, 17))),
    Case("pad", lambda x: F.pad(x, (1, 2, 0, 3), value=0.5), cube),
    Case("pad circular", lambda x: F.pad(x, (2, 1), mode="circular"), cube),
    Case("flip", lambda x: x.flip(0, 2), cube),
    Case("repeat", lambda x: x.repeat(2, 1, 3), cube),
    Case("arange", lambda x: x + torch.arange(x.shape[1], dtype=torch.float32)[:, None], cube),
    Case("full", lambda x: x + torch.full((x.shape[1], 1), 2.5), cube),
)  # fmt: skip

FAMILIES: dict[str, tuple[Case, ...]] = {
    "elementwise": ELEMENTWISE,
    "view": VIEWS,
    "product": PRODUCTS,
    "convolution": CONVOLUTIONS,
    "volume": VOLUMES,
    "pool": POOLS,
    "image": IMAGES,
    "rowwise": ROWWISE,
    "reduction": REDUCTIONS,
    "attention": ATTENTION,
    "rotary": ROTARY,
    "index": INDICES,
}
CASES: tuple[Case, ...] = tuple(case for cases in FAMILIES.values() for case in cases)
