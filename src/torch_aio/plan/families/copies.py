"""Elementwise steps on values that exist: what copies, casts and chains share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from torch_aio.ir.symbols import Int
from torch_aio.kernels.chain import DTYPES, Access, Chain, Input, Step
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
    steps = (Step("cast", (0,), DTYPES[target.dtype]),) if source.dtype != target.dtype else ()
    apply(ctx, Chain((Input(DTYPES[source.dtype], "full"),), steps), [source], target)


def apply(ctx: Lowering, chain: Chain, inputs: Sequence[Value], target: Value) -> None:
    """One elementwise step: ``target = chain(inputs)``, operands broadcast to the target's shape."""
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
