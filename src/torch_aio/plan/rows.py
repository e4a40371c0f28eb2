"""The operator table: one literal tuple of rows, by family."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from torch_aio.plan.families import (
    attention,
    channels,
    compound,
    conv,
    depth,
    elementwise,
    gemm,
    group_norm,
    index,
    moments,
    norm,
    phased,
    pool,
    reduce,
    reorder,
    resample,
    rotate,
    scatter,
    views,
)
from torch_aio.plan.row import Row

ROWS: tuple[Row, ...] = (
    *gemm.ROWS,
    *conv.ROWS,
    *phased.ROWS,
    *attention.ROWS,
    *pool.ROWS,
    *resample.ROWS,
    *depth.ROWS,
    *norm.ROWS,
    *group_norm.ROWS,
    *rotate.ROWS,
    *reduce.ROWS,
    *moments.ROWS,
    *elementwise.ROWS,
    *compound.ROWS,
    *index.ROWS,
    *scatter.ROWS,
    *views.ROWS,
    *channels.ROWS,
    *reorder.ROWS,
)

_BY_OP: dict[Any, Row] = {row.op: row for row in ROWS}


def row_of(node: Node) -> Row | None:
    """The row of a node's operator, if there is one."""
    return _BY_OP.get(node.target) if node.op == "call_function" else None
