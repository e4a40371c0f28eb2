"""Rows of attention: the operator, and the spelled out form that pass ``fuse_attention`` finds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from torch_aio.codegen.isa import Isa
from torch_aio.codegen.types import f32
from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Int, ceil_div, product
from torch_aio.kernels import attention_few
from torch_aio.kernels.attention import Attention
from torch_aio.kernels.attention_few import MOST_ROWS, AttentionFew
from torch_aio.kernels.attention_mask import Masking, MaskKind
from torch_aio.kernels.attention_work import Tile, scratch_bytes
from torch_aio.kernels.panel import panel_columns
from torch_aio.ops.attention import attention
from torch_aio.plan.families.copies import contiguous, copy
from torch_aio.plan.families.products import best_tile, is_unit, with_unit_columns
from torch_aio.plan.lowering import Group, Lowering
from torch_aio.plan.row import Row
from torch_aio.plan.value import Argument, Value

aten = torch.ops.aten
BLOCK_KEYS = 256
"""Keys at a time: their scores stay in L2."""
UNITS_A_THREAD = 4


@dataclass(frozen=True)
class Call:
    """A node of this family, its arguments by name; ``fill`` stands where a bool mask is False."""

    q: Node
    k: Node
    v: Node
    mask: Node | None
    scale: Any
    causal: Any = False
    dropout: Any = 0.0
    grouped: bool = False
    fill: float = -math.inf
    safe: bool = True


def parse(node: Node) -> Call:
    """The operands of a node of this family."""
    args: list[Any] = list(node.args)
    options: dict[str, Any] = dict(node.kwargs)
    names: tuple[str, ...] = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    if node.target is attention:
        names = ("q", "k", "v", "mask")
    options.update(zip(names, args, strict=False))
    q, k, v = (options[name] for name in names[:3])
    if node.target is attention:
        fill = options.get("fill")
        return Call(
            q, k, v, options.get("mask"), options.get("scale", 1.0),
            fill=-math.inf if fill is None else fill, safe=False,
        )  # fmt: skip
    scale = options.get("scale")
    if scale is None and isinstance(width := q.meta["spec"].shape[-1], int) and width:
        scale = 1 / math.sqrt(width)
    return Call(
        q, k, v, options.get("attn_mask"), scale, options.get("is_causal", False),
        options.get("dropout_p", 0.0), bool(options.get("enable_gqa", False)),
    )  # fmt: skip


def accept(node: Node) -> str | None:
    """Attention over f32 heads of equal batches."""
    call = parse(node)
    specs: list[TensorSpec] = [n.meta["spec"] for n in (call.q, call.k, call.v)]
    if any(s.dtype != torch.float32 for s in specs):
        return f"attention in {str(specs[0].dtype).removeprefix('torch.')} has no kernel"
    if any(not 3 <= s.ndim <= 4 or s.ndim != specs[0].ndim for s in specs):
        return "attention is taken for tensors of rank 3 or 4"
    if call.dropout != 0.0:
        return "attention with dropout is random"
    if not isinstance(call.scale, (int, float)) or not isinstance(call.causal, bool):
        return "the scale of this attention is not a number"
    if specs[0].shape[-1] == 0:
        return "the heads are empty"
    return _why_not_batch(call, specs) or _why_not_mask(call)


def _why_not_batch(call: Call, specs: list[TensorSpec]) -> str | None:
    q, k, v = (s.shape[:-2] for s in specs)
    if k != v:
        return "keys and values differ in their batch"
    if q == k:
        return None
    if len(q) == 2 and call.grouped and q[0] == k[0]:
        return None
    return "queries and keys differ in their batch"


def _why_not_mask(call: Call) -> str | None:
    if call.mask is None:
        return None
    if call.causal:
        return "attention is both causal and masked"
    dtype = call.mask.meta["spec"].dtype
    if dtype not in (torch.float32, torch.bool):
        return f"masks of {str(dtype).removeprefix('torch.')} have no kernel"
    return None


def flops(node: Node) -> Int:
    """Two operations a product, scores and context."""
    call = parse(node)
    q: TensorSpec = call.q.meta["spec"]
    v: TensorSpec = call.v.meta["spec"]
    return 2 * product(q.shape[:-1]) * v.shape[-2] * (q.shape[-1] + v.shape[-1])


def lower(ctx: Lowering, group: Group) -> None:
    """Attention of few rows, or of blocks of them."""
    node = group.output
    call = parse(node)
    out = _target(ctx, node)
    if any(isinstance(size, int) and size == 0 for size in out.shape):
        return
    q, k, v = (with_unit_columns(ctx, _rank4(ctx.value(n))) for n in (call.q, call.k, call.v))
    operands = [q, _rank4(out)]
    kind: MaskKind = ""
    if call.mask is not None:
        kind = "bool" if ctx.value(call.mask).dtype == torch.bool else "float"
        operands.append(_mask(ctx, call.mask, (*q.shape[:-1], k.shape[-2])))
    grouped = _as_rows(operands, k)
    few = not call.causal and isinstance(grouped[0].shape[-2], int)
    if few and (_is_one(q.shape[-2]) or grouped[0].shape[-2] <= MOST_ROWS):
        _attend_few(ctx, call, kind, grouped, k, v)
    else:
        _attend(ctx, call, kind, operands, k, v)
    target = ctx.values[node]
    if target is not out:
        copy(ctx, out, target)


def _attend(
    ctx: Lowering, call: Call, kind: MaskKind, operands: list[Value], k: Value, v: Value
) -> None:
    batch, heads, rows, width = operands[0].shape
    keys, values = v.shape[-2:]
    tile, context = max(ctx.isa.tile, key=lambda tile: tile[1]), best_tile(ctx.isa, values)
    shared = bool(kind) and _is_zero(operands[-1].stride[-2])
    masking = Masking(kind, shared, tile[1] if kind and not shared else 1)
    ragged = not isinstance(values, int) or values % panel_columns(ctx.isa, context) != 0
    block_rows, block_keys = _block_rows(ctx.isa, tile, batch * heads, rows), _block_keys(keys)
    ctx.step(
        Attention(tile, context, ragged, masking, call.causal, call.safe),
        batch * heads * ceil_div(rows, block_rows), ("o",),
        heads=heads, group=heads // k.shape[1], sq=rows, sk=keys, d=width, dv=values,
        scale=float(call.scale), block_rows=block_rows, block_keys=block_keys,
        work=ctx.scratch(
            scratch_bytes(ctx.isa, tile, context, masking, block_keys, width, values)
        ),
        **_arguments(call, kind, {**_named(operands), "k": k, "v": v}),
    )  # fmt: skip


def _block_rows(isa: Isa, tile: Tile, matrices: Int, rows: Int) -> int:
    """Queries a unit: as many as the tile takes, fewer where threads would have nothing to do."""
    block = panel_columns(isa, tile)
    while block > isa.lanes(f32):
        units = matrices * ceil_div(rows, block)
        if not isinstance(units, int) or units >= UNITS_A_THREAD * torch.get_num_threads():
            break
        block //= 2
    return block


def _block_keys(keys: Int) -> Int:
    """Keys at a time: equal blocks of about ``BLOCK_KEYS``."""
    if not isinstance(keys, int):
        return BLOCK_KEYS
    return max(ceil_div(keys, max(ceil_div(keys, BLOCK_KEYS), 1)), 1)


def _attend_few(
    ctx: Lowering, call: Call, kind: MaskKind, operands: list[Value], k: Value, v: Value
) -> None:
    batch, heads, count, width = operands[0].shape
    keys, values = v.shape[-2:]
    rows = min(int(count), MOST_ROWS)  # type: ignore[arg-type]
    ctx.step(
        AttentionFew(rows, kind, call.safe), batch * heads * ceil_div(count, rows), ("o",),
        heads=heads, count=count, sk=keys, d=width, dv=values, scale=float(call.scale),
        work=ctx.scratch(attention_few.scratch_bytes(ctx.isa, rows, keys)),
        **_arguments(call, kind, {**_named(operands), "k": k, "v": v}),
    )  # fmt: skip


def _named(operands: list[Value]) -> dict[str, Value]:
    return dict(zip(("q", "o", "mask"), operands, strict=False))


def _arguments(call: Call, kind: MaskKind, operands: dict[str, Value]) -> dict[str, Argument]:
    arguments: dict[str, Argument] = {}
    for name, value in operands.items():
        names = (f"{name}_{part}" for part in ("outer", "inner", "row"))
        arguments |= {name: value, **dict(zip(names, value.byte_stride, strict=False))}
    if kind == "bool":
        arguments["fill"] = float(call.fill)
    return arguments


def _as_rows(operands: list[Value], k: Value) -> list[Value]:
    """One row a head: query heads that share a head of k become rows of it, else as they are."""
    heads, rows = operands[0].shape[1:3]
    group = heads // k.shape[1]
    if not _is_one(rows) or _is_one(group):
        return operands
    turned = []
    for value in operands:
        batch, _, _, width = value.shape
        outer, inner, _, one = value.stride
        shape = (batch, k.shape[1], group, width)
        turned.append(value.view(shape, (outer, inner * group, inner, one)))
    return turned


def _is_zero(size: Int) -> bool:
    return isinstance(size, int) and size == 0


def _is_one(size: Int) -> bool:
    return isinstance(size, int) and size == 1


def _target(ctx: Lowering, node: Node) -> Value:
    """Memory for the result: a network's own output, else [batch, rows, heads, width] in memory.

    Then the transposition and reshape that follow every attention cost nothing.
    """
    spec: TensorSpec = node.meta["spec"]
    if node in ctx.outputs:
        target = ctx.output(node)
        return target if is_unit(target, -1) else ctx.temporary(spec.shape, spec.dtype, node.name)
    if spec.ndim == 3:
        return ctx.output(node)
    batch, heads, rows, width = spec.shape
    dense = ctx.temporary((batch, rows, heads, width), spec.dtype, node.name)
    s = dense.stride
    value = dense.view(spec.shape, (s[0], s[2], s[1], s[3]))
    ctx.bind(node, value)
    return value


def _rank4(value: Value) -> Value:
    """[batch, rows, width] as heads of one batch."""
    if len(value.shape) == 4:
        return value
    return value.view((1, *value.shape), (0, *value.stride))


def _mask(ctx: Lowering, node: Node, shape: tuple[Int, ...]) -> Value:
    """The mask, broadcast to the scores, its last dimension dense."""
    value = ctx.value(node)
    if not is_unit(value, -1) or _is_one(value.shape[-1]):
        value = value.expand((*value.shape[:-1], shape[-1])) if value.shape else value
        value = contiguous(ctx, value)
    return _rank4(value).expand(shape) if len(value.shape) == 3 else value.expand(shape)


ROWS: tuple[Row, ...] = tuple(
    Row(op, "attention", accept=accept, lower=lower, flops=flops)
    for op in (aten.scaled_dot_product_attention.default, attention)
)
