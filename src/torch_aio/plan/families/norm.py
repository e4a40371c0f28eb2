"""Rows of normalisation and softmax: kernels that pass over rows."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from torch_aio.ir.spec import TensorSpec
from torch_aio.kernels.norm import NormSpec
from torch_aio.kernels.softmax import SoftmaxSpec
from torch_aio.plan.families.copies import contiguous, copy
from torch_aio.plan.lowering import Group, Lowering
from torch_aio.plan.row import Prologue, Row
from torch_aio.plan.row_views import as_rows, merged, operand_arguments, prologue
from torch_aio.plan.trace import ChainTrace
from torch_aio.plan.value import Argument, Scratch, Value

aten = torch.ops.aten
F32 = torch.float32


def lower_norm(ctx: Lowering, group: Group) -> None:
    """``layer_norm`` and ``rms_norm`` with the chains in front of it and behind it."""
    node = group.anchor
    assert node is not None
    is_rms = node.target is aten.rms_norm.default
    weight, bias, eps = _norm_arguments(node, is_rms=is_rms)
    dims = len(node.args[1])  # type: ignore[arg-type]
    before, arguments = prologue(ctx, group, dims)
    arguments["eps"] = float(eps)
    kept = _kept(group)
    if kept is not None:
        total = as_rows(ctx, ctx.output(kept), dims)
        arguments |= {"sum": total, "sum_row": total.byte_stride[0]}
    for name, source in (("weight", weight), ("bias", bias)):
        if source is not None:
            arguments[name] = contiguous(ctx, ctx.value(source))
    trace = ChainTrace()
    trace.accumulator(node, F32)
    chain, operands = ctx.epilogue(group, trace, channel=-1)
    chain = merged(chain, dims)
    arguments |= operand_arguments(ctx, chain, operands, "e", dims)
    spec = NormSpec(is_rms, weight is not None, bias is not None, before, chain, kept is not None)
    _emit(ctx, group, spec, arguments, dims)


def lower_softmax(ctx: Lowering, group: Group) -> None:
    """``softmax``, ``log_softmax`` along any dimension: the last one in memory, else copied so."""
    node = group.anchor
    assert node is not None
    is_log = node.target is aten.log_softmax.int
    dim = _softmax_dim(node)
    if not _is_over_last(node):
        value = ctx.value(node.args[0])  # type: ignore[arg-type]
        _softmax_inner(ctx, group, _to_end(value, dim), dim, is_log=is_log)
        return
    before, arguments = prologue(ctx, group)
    trace = ChainTrace()
    trace.accumulator(node, F32)
    chain, operands = ctx.epilogue(group, trace, channel=-1)
    arguments |= operand_arguments(ctx, chain, operands, "e")
    spec = SoftmaxSpec(before, chain, is_log)
    _emit(ctx, group, spec, arguments, 1)


def _softmax_dim(node: Node) -> int:
    axis: Any = node.args[1]
    spec: TensorSpec = node.meta["spec"]
    return int(axis) % max(spec.ndim, 1)


def _is_over_last(node: Node) -> bool:
    spec: TensorSpec = node.meta["spec"]
    return not spec.ndim or _softmax_dim(node) == spec.ndim - 1


def _softmax_inner(ctx: Lowering, group: Group, moved: Value, dim: int, *, is_log: bool) -> None:
    """Softmax of a dimension that is not the last: rows of a transposed copy, written back."""
    x = as_rows(ctx, moved)
    rows = ctx.temporary(moved.shape, F32)
    ctx.step(
        SoftmaxSpec(is_log=is_log),
        x.shape[0],
        ("y",),
        cols=x.shape[1], x0=x, x0_row=x.byte_stride[0],
        y=rows, y_row=x.shape[1] * 4,
    )  # fmt: skip
    target = ctx.output(group.output)
    copy(ctx, rows, _to_end(target, dim))


def _to_end(value: Value, dim: int) -> Value:
    order = [d for d in range(len(value.shape)) if d != dim] + [dim]
    return value.view(tuple(value.shape[d] for d in order), tuple(value.stride[d] for d in order))


def _emit(
    ctx: Lowering, group: Group, spec: Any, arguments: dict[str, Argument], dims: int
) -> None:
    """The step, into the group's output directly where its rows lie evenly."""
    target = ctx.output(group.output)
    rows = target
    if not target.is_contiguous:
        rows = ctx.temporary(target.shape, target.dtype)
    flat = as_rows(ctx, rows, dims)
    if "stage" in spec.params.kinds:
        arguments["stage"] = Scratch(flat.shape[1] * 4)
    writes = ("y", "sum") if "sum" in arguments else ("y",)
    ctx.step(spec, flat.shape[0], writes, **arguments, y=flat, y_row=flat.byte_stride[0])
    if rows is not target:
        copy(ctx, rows, target)


def _kept(group: Group) -> Node | None:
    """The result of the chain in front where others than the anchor read it."""
    node = group.before.output if group.before is not None else None
    if node is None or (len(node.users) == 1 and not node.meta.get("escapes")):
        return None
    return node


def _norm_arguments(node: Node, *, is_rms: bool) -> tuple[Any, Any, float]:
    names = ("weight", "eps") if is_rms else ("weight", "bias", "eps")
    given: dict[str, Any] = {**dict.fromkeys(names), **node.kwargs}
    given |= dict(zip(names, node.args[2:], strict=False))
    if given["eps"] is None:
        given["eps"] = torch.finfo(F32).eps if is_rms else 1e-5
    return given["weight"], given.get("bias"), given["eps"]


def accept(node: Node) -> str | None:
    """f32 only."""
    for tensor in (node, *node.all_input_nodes):
        spec: TensorSpec = tensor.meta["spec"]
        if spec.dtype != F32:
            return f"rows of {str(spec.dtype).removeprefix('torch.')} have no kernel"
    return None


def accept_softmax(node: Node) -> str | None:
    """f32 only; without another dtype asked for; fused chains need the last dimension."""
    if len(node.args) > 2 and node.args[2] not in (None, F32):
        return "softmax into another dtype has no kernel"
    return accept(node)


def norm_prologue(node: Node) -> Prologue:
    """The sum in front is often the residual that lives on; rows are the last dimension."""
    sizes: Any = node.args[1]
    return "kept" if len(sizes) == 1 else ""


def softmax_prologue(node: Node) -> Prologue:
    """Scale and mask, where rows of memory are normalised."""
    return "read" if _is_over_last(node) else ""


ROWS: tuple[Row, ...] = (
    *(
        Row(op, "norm", accept, lower_norm, epilogue=True, prologue=norm_prologue)
        for op in (aten.layer_norm.default, aten.rms_norm.default)
    ),
    *(
        Row(op, "softmax", accept_softmax, lower_softmax, prologue=softmax_prologue)
        for op in (aten.softmax.int, aten.log_softmax.int)
    ),
)
