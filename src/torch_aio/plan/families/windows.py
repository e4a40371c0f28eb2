"""What convolution and pooling share: normalised arguments, blocked memory, epilogue operands."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import Node

from torch_aio.codegen.isa import Isa
from torch_aio.codegen.types import f32
from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Int, ceil_div, product
from torch_aio.kernels.chain import Chain
from torch_aio.kernels.conv import OVERREAD
from torch_aio.kernels.pack_conv import Packed, PickTaps
from torch_aio.plan.families.reorder import clear_halo, planes
from torch_aio.plan.lowering import Lowering
from torch_aio.plan.value import Argument, Value

Pair = tuple[int, int]


def pair(value: int | Sequence[int], missing: int) -> Pair:
    """(rows, columns) of an argument for one or two dimensions; ``missing`` for the row of 1-d."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return (missing, values[0]) if len(values) == 1 else (values[0], values[1])


def argument(node: Node, position: int, name: str, default: Any) -> Any:
    """An argument of a node by position or name."""
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name, default)


@dataclass(frozen=True)
class Conv:
    """A convolution as one of two dimensions (one row for conv1d); ``padding`` is top and left."""

    inputs: int
    outputs: int
    groups: int
    kernel: Pair
    stride: Pair
    padding: Pair
    halo: Pair
    dilation: Pair

    @staticmethod
    def of(node: Node) -> Conv:
        """The convolution that a conv1d or conv2d node computes."""
        weight = node.args[1]
        assert isinstance(weight, Node)
        spec: TensorSpec = weight.meta["spec"]
        outputs, inputs, *taps = (int(size) for size in spec.shape)  # type: ignore[arg-type]
        rank, kernel = len(taps), pair(taps, 1)
        groups = argument(node, 6, "groups", 1)
        stride = pair(_spread(argument(node, 3, "stride", 1), rank), 1)
        dilation = pair(_spread(argument(node, 5, "dilation", 1), rank), 1)
        given = argument(node, 4, "padding", 0)
        if isinstance(given, str):
            reach = [
                d * (k - 1) if given == "same" else 0 for d, k in zip(dilation, kernel, strict=True)
            ]
            before, after = (reach[0] // 2, reach[1] // 2), (-(-reach[0] // 2), -(-reach[1] // 2))
        else:
            before = after = pair(_spread(given, rank), 0)
        return Conv(inputs * groups, outputs, groups, kernel, stride, before, after, dilation)

    @property
    def flops(self) -> int:
        """Multiply-adds times two, a pixel of the output."""
        return 2 * math.prod(self.kernel) * self.inputs // self.groups * self.outputs


@dataclass(frozen=True)
class Samples:
    """Several convolutions side by side: ``count``, and the bytes between them.

    In the input, the result, and each operand that varies like it.
    """

    count: Int
    x: Int
    y: Int
    operands: tuple[Int, ...] = ()


@dataclass(frozen=True)
class Job:
    """One convolution to lower: what it computes, its weight, its epilogue, its result.

    ``pick``: what becomes of the weight before it is packed. ``samples``: the same for each of
    several groups of images that do not lie evenly.
    """

    conv: Conv
    weight: Node
    chain: Chain
    operands: list[Value]
    target: Value
    pick: PickTaps | None = None
    samples: Samples | None = None

    def packed(self, ctx: Lowering, pack: Callable[[torch.Tensor], torch.Tensor]) -> Value:
        """The weight as ``pack`` lays it out."""
        return ctx.constant(self.weight, Packed(self.pick, pack) if self.pick else pack)

    @property
    def shares_channels(self) -> bool:
        """Whether no operand that varies by channel varies by image as well (a gate does)."""
        pairs = zip(self.chain.inputs[1:], self.operands, strict=True)
        images = self.target.shape[0]
        return images == 1 or all(
            value.shape[0] == 1 or value.stride[0] == 0
            for operand, value in pairs
            if operand.access == "channel"
        )

    @property
    def result_strides(self) -> list[Int]:
        """(image, row, pixel) bytes of the result, then of the operands that vary like it."""
        images, strides = self.target.shape[0], list[Int]()
        for value in (self.target, *full_values(self.chain, self.operands)):
            image, _, row, pixel = value.byte_stride
            strides += [0 if value.shape[0] == 1 and images != 1 else image, row, pixel]
        return strides

    def vectors(self, isa: Isa) -> int:
        """Output vectors (of whole blocks) a group."""
        outputs = self.conv.outputs // self.conv.groups
        return -(-outputs // isa.block) * (isa.block // isa.lanes(f32))


def _spread(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * rank if len(values) == 1 else values


def origin(value: Value, padding: Pair, strides: Sequence[Int]) -> Value:
    """The value seen from the first tap of output pixel 0: ``padding`` before its first pixel."""
    back = padding[0] * strides[2] + padding[1] * strides[3]
    return replace(value, offset=value.offset - back)


def blocked_temporary(
    ctx: Lowering, shape: tuple[Int, Int, Int, Int], block: int, halo: Pair, like: Value
) -> Value:
    """Blocked arena memory for [N, C, H, W], its frame of zeros written."""
    n, channels, height, width = shape
    row = (width + 2 * halo[1]) * block
    area = (height + 2 * halo[0]) * row
    blocks = ceil_div(channels, block)
    memory = ctx.temporary((product((n, blocks, area)) + OVERREAD * block,), like.dtype, "blocked")
    inner = (halo[0] * row + halo[1] * block) * like.itemsize
    stride = (blocks * area, area, row, block)
    value = Value(memory.buffer, shape, like.dtype, stride, inner, block)
    if halo != (0, 0):
        clear_halo(ctx, value, halo)
    return value


def operand_arguments(
    chain: Chain, operands: Sequence[Value], batch: Int, *, rows: bool
) -> dict[str, Argument]:
    """The arguments of an epilogue's operands, as ``kernels.blocked`` declares them."""
    arguments: dict[str, Argument] = {}
    for n, (operand, value) in enumerate(zip(chain.inputs[1:], operands, strict=True), 1):
        arguments[f"e{n}"] = value
        if operand.access == "scalar":
            continue
        if not value.block:
            raise TypeError(f"operand {n} of a blocked epilogue is not blocked")
        images, block, row, _ = value.byte_stride
        arguments[f"e{n}_batch"] = 0 if value.shape[0] == 1 and batch != 1 else images
        arguments[f"e{n}_block"] = block
        if operand.access == "full" and rows:
            arguments[f"e{n}_row"] = row
    return arguments


def full_values(chain: Chain, operands: Sequence[Value]) -> list[Value]:
    """The operands that vary like the output."""
    pairs = zip(chain.inputs[1:], operands, strict=True)
    return [value for operand, value in pairs if operand.access == "full"]


def strides_of(name: str, value: Value) -> dict[str, Argument]:
    """The byte strides of a blocked value as arguments ``<name>_batch``, ``_block``, ``_row``."""
    batch, block, row, _ = value.byte_stride
    return {f"{name}_batch": batch, f"{name}_block": block, f"{name}_row": row}


def has_batch(node: Node) -> str | None:
    """Refuse what is not f32 or has no batch dimension, and sizes of zero."""
    source = node.args[0]
    assert isinstance(source, Node)
    spec: TensorSpec = source.meta["spec"]
    if str(spec.dtype) != "torch.float32":
        return f"windows over {str(spec.dtype).removeprefix('torch.')} have no kernel"
    ranks = [n for n in (1, 2, 3) if f"{n}d" in str(node.target)]  # convolution: has a batch
    if ranks and spec.ndim != ranks[0] + 2:
        return "its input has no batch dimension"
    return None


__all__ = [
    "Conv", "Job", "argument", "blocked_temporary", "full_values", "has_batch", "operand_arguments",
    "origin", "pair", "planes", "strides_of",
]  # fmt: skip
