"""Pass ``quantise``: marks the products that run in int8, by the user's filter."""

from __future__ import annotations

import math

import torch
from torch.fx import GraphModule, Node

from torch_aio.graph.hoist_constants import is_constant
from torch_aio.graph.names import matches
from torch_aio.graph.rewrite import refuse, spec
from torch_aio.kernels.pack_int8 import MOST_TERMS
from torch_aio.plan.families import conv, gemm
from torch_aio.plan.families.windows import Conv, argument
from torch_aio.plan.row import Row
from torch_aio.plan.rows import row_of

_PRODUCTS = {row.op for row in gemm.ROWS}
_CONVOLUTIONS = {row.op for row in conv.ROWS if row.planar is not None}


def quantise(gm: GraphModule, pattern: str) -> int:
    """linear(x, w) -> linear(x, w) with meta["int8"], where its name matches ``pattern``.

    The plan then takes products of bytes for it; a matching operator that stays in floating point
    says why.
    """
    count = 0
    for node in gm.graph.nodes:
        if not any(matches(pattern, name) for name in node.meta.get("names", ())):
            continue
        reason = why_not(node)
        if reason is None:
            node.meta["int8"] = True
            count += 1
        elif node.target in _PRODUCTS | _CONVOLUTIONS:
            refuse(node, "quantise", reason)
    return count


def why_not(node: Node) -> str | None:
    """None, or why an operator has no int8 form."""
    row = row_of(node)
    if row is not None and node.target in _PRODUCTS:
        return _product(row, node)
    if row is not None and node.target in _CONVOLUTIONS:
        return _convolution(node)
    return "only matrix products and convolutions have an int8 form"


def _product(row: Row, node: Node) -> str | None:
    reason = row.accept(node)
    if reason is not None:
        return reason
    product = gemm.parse(node)
    terms = spec(product.x).shape[-1]
    if spec(product.x).dtype != torch.float32:
        return "int8 forms take f32 tensors"
    if spec(product.y).ndim < 2:
        return "a matrix times a vector reads no weight twice"
    return "the number of terms is not known" if not isinstance(terms, int) else _sums(terms)


def _convolution(node: Node) -> str | None:
    if not is_constant(argument(node, 1, "weight", None)):
        return "its weight is not a constant"
    found = Conv.of(node)
    if spec(node).dtype != torch.float32:
        return "int8 forms take f32 tensors"
    if found.groups > 1:
        return "convolutions in groups are bound by memory"
    if conv.planar(node):
        return "an input of few channels is read as it is"
    return _sums(found.inputs * math.prod(found.kernel))


def _sums(terms: int) -> str | None:
    if not terms:
        return "there is nothing to sum"
    if terms > MOST_TERMS:
        return f"sums of more than {MOST_TERMS} terms do not fit 32 bits"
    return None
