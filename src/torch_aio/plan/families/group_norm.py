"""The row of group normalisation: plain tensors, a (sample, group) pair a unit."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import product
from torch_aio.kernels.norm import GroupNormSpec
from torch_aio.plan.families.copies import contiguous, copy
from torch_aio.plan.lowering import Group, Lowering
from torch_aio.plan.row import Row
from torch_aio.plan.value import Argument

aten = torch.ops.aten


def _arguments(node: Node) -> tuple[Any, Any, float]:
    """Weight, bias and eps."""
    given: list[Any] = [*node.args, *(None,) * (6 - len(node.args))]
    weight, bias = (
        given[i] if given[i] is not None else node.kwargs.get(name)
        for i, name in ((2, "weight"), (3, "bias"))
    )
    eps: Any = given[4] if given[4] is not None else node.kwargs.get("eps", 1e-5)
    return weight, bias, float(eps)


def lower(ctx: Lowering, group: Group) -> None:
    """``group_norm(x, groups, weight, bias, eps)``."""
    node = group.output
    source: Any = node.args[0]
    groups: Any = node.args[1]
    weight, bias, eps = _arguments(node)
    x = contiguous(ctx, ctx.value(source))
    n, channels, *plane = x.shape
    target = ctx.output(node)
    y = target if target.is_contiguous else ctx.temporary(target.shape, target.dtype)
    parameters: dict[str, Argument] = {
        name: contiguous(ctx, ctx.value(value))
        for name, value in (("weight", weight), ("bias", bias))
        if value is not None
    }
    ctx.step(
        GroupNormSpec(weight is not None, bias is not None), n * groups, ("y",),
        plane=product(tuple(plane)), channels=channels // groups, groups=groups,
        eps=eps, x=x, y=y, **parameters,
    )  # fmt: skip
    if y is not target:
        copy(ctx, y, target)


def accept(node: Node) -> str | None:
    """f32 throughout."""
    for tensor in (node, *node.all_input_nodes):
        spec: TensorSpec = tensor.meta["spec"]
        if spec.dtype != torch.float32:
            return f"group norm of {str(spec.dtype).removeprefix('torch.')} has no kernel"
    return None


ROWS: tuple[Row, ...] = (Row(aten.group_norm.default, "norm", accept, lower),)
