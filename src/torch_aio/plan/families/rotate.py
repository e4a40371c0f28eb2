"""The row of rotary embedding, as pass ``fuse_rope`` finds it or ``aio.rope`` becomes it."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Int
from torch_aio.kernels.chain import DTYPES
from torch_aio.kernels.rotate import RotateSpec
from torch_aio.ops.rotate import rotate
from torch_aio.plan.families.copies import contiguous, copy
from torch_aio.plan.index_space import collapse
from torch_aio.plan.lowering import Group, Lowering
from torch_aio.plan.row import Row
from torch_aio.plan.value import Argument, Value

OUTER = 3
"""Dimensions of rows that the kernel walks."""


def lower(ctx: Lowering, group: Group) -> None:
    """``rotate(x, cos, sin)``: rows in the order of the result's memory."""
    node = group.output
    x, cos, sin = (_dense_rows(ctx, ctx.value(source)) for source in node.all_input_nodes)
    target = ctx.output(node)
    y = target if target.stride[-1] == 1 else ctx.temporary(target.shape, target.dtype)
    operands = dict(zip(("x", "cos", "sin", "y"), (x, cos, sin, y), strict=True))
    sizes, strides = _rows(operands, y)
    width = y.shape[-1]
    arguments: dict[str, Argument] = dict(operands)
    for name, steps in zip(operands, strides, strict=True):
        arguments |= {f"{name}_{d}": step for d, step in enumerate(steps)}
    for name, table in (("cos_half", cos), ("sin_half", sin)):
        arguments[name] = width // 2 * table.itemsize if table.shape[-1] == width else 0
    spec = RotateSpec(DTYPES[y.dtype], DTYPES[cos.dtype])
    ctx.step(
        spec, sizes[0] * sizes[1], ("y",), n1=sizes[1], n2=sizes[2], half=width // 2, **arguments
    )
    if y is not target:
        copy(ctx, y, target)


def _dense_rows(ctx: Lowering, value: Value) -> Value:
    return value if value.stride[-1] == 1 else contiguous(ctx, value)


def _rows(operands: dict[str, Value], y: Value) -> tuple[tuple[Int, ...], list[tuple[Int, ...]]]:
    """Sizes of the three outer dimensions, and each operand's byte strides along them."""
    outer = y.shape[:-1]
    order = list(range(len(outer)))
    if all(isinstance(s, int) for s in y.stride):
        order.sort(key=lambda d: -y.stride[d])
    expanded = [v.expand((*outer, v.shape[-1])).byte_stride for v in operands.values()]
    space = collapse([outer[d] for d in order], [[s[d] for d in order] for s in expanded])
    missing = OUTER - len(space.sizes)
    return (1,) * missing + space.sizes, [(0,) * missing + s for s in space.strides]


def accept(node: Node) -> str | None:
    """f32, f16 and bf16 of up to four dimensions, by tables of one dtype."""
    x, cos, sin = (_spec(source) for source in node.args)
    if x.ndim > OUTER + 1:
        return "a rotation of more than four dimensions has no kernel"
    if not isinstance(x.shape[-1], int):
        return "a rotation of rows whose width is not known has no kernel"
    kernels = (torch.float32, torch.float16, torch.bfloat16)
    if (
        x.dtype not in kernels
        or cos.dtype not in (x.dtype, torch.float32)
        or cos.dtype != sin.dtype
    ):
        return f"a rotation of {_name(x)} by tables of {_name(cos)} and {_name(sin)} has no kernel"
    if _spec(node).dtype != x.dtype:
        return "a rotation into another dtype has no kernel"
    return None


def _spec(node: Any) -> TensorSpec:
    spec: TensorSpec = node.meta["spec"]
    return spec


def _name(spec: TensorSpec) -> str:
    return str(spec.dtype).removeprefix("torch.")


ROWS: tuple[Row, ...] = (Row(rotate, "rotate", accept, lower),)
