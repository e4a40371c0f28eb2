"""Direct convolution of bytes: x quantised by image, w by output channel, sums exact.

    y[n, o] = s[n] t[o] (sum_k q[n, k] w[k, o] - z[n] sum_k w[k, o])

A channel block of a pixel is c bytes, c / 4 words: the blocking is that of ``Conv``, a term a word.
The halo holds z, so that what it adds to the sums is taken off again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.types import Value, f32, i32, vec
from torch_aio.kernels.blocked import Epilogue, operand_params
from torch_aio.kernels.conv import Conv
from torch_aio.kernels.microkernel import DOT, Arithmetic
from torch_aio.kernels.pack_conv import PackConv
from torch_aio.kernels.pack_int8 import levels_of
from torch_aio.kernels.quantise_images import INFO

BYTES = 4


@dataclass(frozen=True)
class PackConvInt8:
    """[O, I, KH, KW] to i32 [scales, sums, panels of words], flat; see ``PackConv``.

    Scales (f32) and sums of ``width`` columns a panel come first, then for each panel
    [blocks][KH][KW][c / 4][width] words of four input channels, the first in the lowest byte.
    """

    block: int
    width: int

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        """The packed weight."""
        bytes_, scale = levels_of(weight.flatten(1).float())
        planes = bytes_.view(weight.shape).float()
        packed = PackConv(1, self.block, self.block, self.width)(planes).to(torch.int8)
        turned = packed.unflatten(-2, (-1, 4)).transpose(-1, -2).contiguous()
        head = torch.zeros(2, packed.shape[1] * self.width, dtype=torch.int32)
        head[0, : len(scale)] = scale.view(torch.int32)
        head[1, : len(scale)] = bytes_.sum(-1, dtype=torch.int32)
        return torch.cat([head.flatten(), turned.view(torch.int32).flatten()])


@dataclass(frozen=True)
class ConvInt8(Conv):
    """y = epilogue(dequantised x * w); ``info``: ``INFO`` words of each image.

    One group, the input blocked, ``chunk`` all of it; else as ``Conv``.
    """

    arithmetic: ClassVar[Arithmetic] = DOT

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The kernel's parameters, the epilogue's operands last."""
        own = " ".join(f"{name}:{kind}" for name, kind in Conv(self.tile).params.kinds.items())
        return Params(f"info:ptr {own} " + operand_params(self.chain, rows=False))

    @property
    def name(self) -> str:
        """``conv_int8_6x4_relu_1f3a9c``."""
        return super().name.replace("conv_f32", "conv_int8", 1)

    def _weights(self, k: Builder, _panels: Size) -> Value:
        return k.at(k.p.w, k.mul(_panels, 2 * self.tile[1] * k.isa.width // 8))

    def _terms(self, k: Builder) -> int:
        return k.isa.block // 4

    def _part(
        self, k: Builder, batch: Size, group: Size, vector: Size
    ) -> tuple[Value, Value, Epilogue]:
        """The epilogue scales first: what it needs of the image and the channels is loaded here."""
        exists, y, epilogue = super()._part(k, batch, group, vector)
        lanes, size = k.isa.lanes(f32), k.isa.width // 8
        info = k.at(k.p.info, k.mul(batch, INFO * BYTES))
        panels = k.ceil_div(k.p.out_vectors, self.tile[1])
        scales = k.at(k.p.w, k.mul(vector, size))
        sums = k.load(vec(i32, lanes), scales, k.mul(panels, self.tile[1] * size))
        scale = k.fmul(k.load(vec(f32, lanes), scales), k.broadcast(vec(f32, lanes), info))
        zero = k.op("mul", sums, k.broadcast(vec(i32, lanes), info, BYTES))
        return exists, y, Scaled.of(epilogue, scale, zero)


@dataclass
class Scaled(Epilogue):
    """An epilogue whose accumulator is i32: ``(sums - zero) * scale`` goes into the chain."""

    scale: Value
    zero: Value

    @staticmethod
    def of(epilogue: Epilogue, scale: Value, zero: Value) -> Scaled:
        """In front of an epilogue."""
        own = epilogue.k, epilogue.chain, epilogue.pointers, epilogue.fixed, epilogue.mask
        return Scaled(*own, scale, zero)

    def __call__(self, accumulator: Value, offsets: Sequence[Size]) -> Value:
        """The result; see ``Epilogue``."""
        exact = self.k.op("sub", accumulator, self.zero)
        return super().__call__(self.k.fmul(self.k.cast(exact, f32), self.scale), offsets)
