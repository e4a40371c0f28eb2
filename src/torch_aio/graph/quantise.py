"""Pass ``quantise``: marks the products that run in int8, by the user's filter."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from torch_aio.graph.names import matches
from torch_aio.graph.rewrite import refuse, spec
from torch_aio.kernels.pack_int8 import MOST_TERMS
from torch_aio.plan.families import gemm
from torch_aio.plan.rows import row_of

_OPS = {row.op for row in gemm.ROWS}


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
        elif node.target in _OPS:
            refuse(node, "quantise", reason)
    return count


def why_not(node: Node) -> str | None:
    """None, or why an operator has no int8 form."""
    row = row_of(node)
    if row is None or node.target not in _OPS:
        return "only matrix products have an int8 form"
    reason = row.accept(node)
    if reason is not None:
        return reason
    product = gemm.parse(node)
    terms = spec(product.x).shape[-1]
    if not isinstance(terms, int):
        return "the number of terms is not known"
    if terms > MOST_TERMS:
        return f"sums of more than {MOST_TERMS} terms do not fit 32 bits"
    if spec(product.y).ndim < 2 or spec(product.x).dtype != torch.float32:
        return "a matrix times a vector reads no weight twice"
    return None
