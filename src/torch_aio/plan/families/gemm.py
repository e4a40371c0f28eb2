"""Rows of the gemm family."""

from __future__ import annotations

from torch_aio.plan.row import Row

ROWS: tuple[Row, ...] = ()
