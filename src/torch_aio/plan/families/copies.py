"""Elementwise steps on values that exist: what copies, casts and chains share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from torch_aio.codegen.types import f32
from torch_aio.ir.symbols import Int, ceil_div, product
from torch_aio.kernels.chain import DTYPES, Access, Chain, Input, Step
from torch_aio.kernels.copy import TransposeSpec
from torch_aio.kernels.elementwise import ElementwiseSpec
from torch_aio.plan.index_space import IndexSpace, blocked_space, plain_space
from torch_aio.plan.lowering import Lowering
from torch_aio.plan.value import Argument, Value


def contiguous(ctx: Lowering, value: Value, dtype: torch.dtype | None = None) -> Value:
    """A plain value as row-major memory of ``dtype``; itself where it is that already."""
    dtype = dtype or value.dtype
    if value.is_contiguous and value.dtype == dtype:
        return value
    result = ctx.temporary(value.shape, dtype, "copy")
    copy(ctx, value, result)
    return result


def copy(ctx: Lowering, source: Value, target: Value) -> None:
    """Write ``source``, cast, into ``target`` of the same shape and layout."""
    if source.dtype == target.dtype and _transpose(ctx, source, target):
        return
    steps = (Step("cast", (0,), DTYPES[target.dtype]),) if source.dtype != target.dtype else ()
    apply(ctx, Chain((Input(DTYPES[source.dtype], "full"),), steps), [source], target)


def _transpose(ctx: Lowering, source: Value, target: Value) -> bool:
    """Copy in tiles where the dense dimension of 4-byte elements changes; whether it did."""
    if source.block or target.block or source.itemsize != 4:
        return False
    space = plain_space(target, [source])
    (*outer, cols), (to, back) = space.sizes, space.strides
    size = source.itemsize
    dense = [d for d, step in enumerate(back[:-1]) if isinstance(step, int) and step == size]
    is_dense = isinstance(to[-1], int) and to[-1] == size
    if not is_dense or len(dense) != 1 or len(outer) > 3:
        return False
    rows = dense[0]
    rest = [d for d in range(len(outer)) if d != rows]
    missing: list[Int] = [0] * (2 - len(rest))
    sizes = (*(1 for _ in missing), *(outer[d] for d in rest))
    steps = [[*missing, *(s[d] for d in rest)] for s in (back, to)]
    ctx.step(
        TransposeSpec(), product(sizes) * ceil_div(outer[rows], ctx.isa.lanes(f32)), ("y",),
        n1=sizes[1], rows=outer[rows], cols=cols,
        x=source, x_0=steps[0][0], x_1=steps[0][1], x_col=back[-1],
        y=target, y_0=steps[1][0], y_1=steps[1][1], y_row=to[rows],
    )  # fmt: skip
    return True


def apply(ctx: Lowering, chain: Chain, inputs: Sequence[Value], target: Value) -> None:
    """One elementwise step ``target = chain(inputs)``, operands broadcast to the target's shape."""
    if target.block:
        space = blocked_space(target, inputs)
    else:
        space = plain_space(target, [value.expand(target.shape) for value in inputs])
    emit(ctx, chain, inputs, target, space)


def emit(
    ctx: Lowering, chain: Chain, inputs: Sequence[Value], target: Value, space: IndexSpace
) -> None:
    """Append the step of a chain over an index space (operand strides: target's, then inputs')."""
    accesses = [
        _access(strides[-1], value.itemsize)
        for strides, value in zip(space.strides, [target, *inputs], strict=True)
    ]
    read = tuple(
        replace(operand, access=access)
        for operand, access in zip(chain.inputs, accesses[1:], strict=True)
    )
    output = "full" if accesses[0] == "full" else "strided"
    rank = len(space.sizes)
    spec = ElementwiseSpec(replace(chain, inputs=read), rank, output)
    arguments: dict[str, Argument] = {f"n{d}": size for d, size in enumerate(space.sizes)}
    names = ["y", *(f"x{j}" for j in range(len(inputs)))]
    for name, value, strides, access in zip(
        names, [target, *inputs], space.strides, [output, *accesses[1:]], strict=True
    ):
        arguments[name] = value
        stored = rank if access == "strided" else rank - 1
        arguments.update({f"{name}_{d}": strides[d] for d in range(stored)})
    rows, columns = space.tile
    if rank > 1:
        arguments["rows"] = rows
    ctx.step(spec, space.units, ("y",), **arguments, cols=columns)


def _access(stride: Int, itemsize: int) -> Access:
    if stride == itemsize:
        return "full"
    return "scalar" if stride == 0 else "strided"
