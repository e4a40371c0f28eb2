"""Shapes of matrix products, attention and recurrent cells."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from torch_aio.ir.shapes.layout import broadcast, dense_like, is_empty
from torch_aio.ir.shapes.table import Row, rows
from torch_aio.ir.shapes.view import transpose
from torch_aio.ir.spec import TensorSpec, contiguous
from torch_aio.ir.symbols import Int


def linear(x: TensorSpec, weight: TensorSpec, bias: TensorSpec | None = None) -> TensorSpec:
    """``x @ weight.T + bias``."""
    _match(x.shape[-1], weight.shape[-1], "linear")
    return contiguous((*x.shape[:-1], *weight.shape[:-1]), x.dtype)


def mm(a: TensorSpec, b: TensorSpec) -> TensorSpec:
    """``[m, k] @ [k, n]``."""
    _match(a.shape[1], b.shape[0], "mm")
    return contiguous((a.shape[0], b.shape[1]), a.dtype)


def mv(a: TensorSpec, v: TensorSpec) -> TensorSpec:
    """``[m, k] @ [k]``."""
    _match(a.shape[1], v.shape[0], "mv")
    return contiguous((a.shape[0],), a.dtype)


def dot(a: TensorSpec, b: TensorSpec) -> TensorSpec:
    """``[k] @ [k]``."""
    _match(a.shape[0], b.shape[0], "dot")
    return contiguous((), a.dtype)


def bmm(a: TensorSpec, b: TensorSpec) -> TensorSpec:
    """``[batch, m, k] @ [batch, k, n]``."""
    _match(a.shape[2], b.shape[1], "bmm")
    _match(a.shape[0], b.shape[0], "bmm")
    return contiguous((a.shape[0], a.shape[1], b.shape[2]), a.dtype)


def addmm(c: TensorSpec, a: TensorSpec, b: TensorSpec, **_: Any) -> TensorSpec:
    """``c + a @ b``."""
    return mm(a, b)


def addmv(c: TensorSpec, a: TensorSpec, v: TensorSpec, **_: Any) -> TensorSpec:
    """``c + a @ v``."""
    return mv(a, v)


def baddbmm(c: TensorSpec, a: TensorSpec, b: TensorSpec, **_: Any) -> TensorSpec:
    """``c + a @ b`` in batches."""
    return bmm(a, b)


def matmul(a: TensorSpec, b: TensorSpec) -> TensorSpec:
    """numpy's matmul, row-major (but for matrices that require grad: at::should_fold)."""
    if a.ndim == 1 and b.ndim == 1:
        return dot(a, b)
    inner = b.shape[-2] if b.ndim > 1 else b.shape[0]
    _match(a.shape[-1], inner, "matmul")
    rows_ = a.shape[-2:-1] if a.ndim > 1 else ()
    columns = b.shape[-1:] if b.ndim > 1 else ()
    batch = broadcast(a.shape[:-2], b.shape[:-2])
    return contiguous((*batch, *rows_, *columns), a.dtype)


def sdpa(
    query: TensorSpec,
    key: TensorSpec,
    value: TensorSpec,
    attn_mask: TensorSpec | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> TensorSpec:
    """The flash kernel allocates like the query, the plain path row-major.

    Older flash kernels allocate ``[batch, length, heads, width]`` and transpose.
    """
    batch = query.shape[:-2] if enable_gqa else broadcast(query.shape[:-2], value.shape[:-2])
    shape = (*batch, query.shape[-2], value.shape[-1])
    if not _flash(query, key, value, attn_mask, dropout_p):
        return contiguous(shape, query.dtype)
    if _flash_follows_query():
        return dense_like(query)
    count, heads, length, width = shape
    return transpose(contiguous((count, length, heads, width), query.dtype), 1, 2)


@lru_cache(maxsize=1)
def _flash_follows_query() -> bool:
    """Asked of this PyTorch once, on a few numbers: its release notes do not say."""
    with torch.no_grad():
        x = torch.zeros(1, 2, 2, 2)
        return bool(torch.ops.aten.scaled_dot_product_attention.default(x, x, x).stride(1) == 4)


def _flash(
    query: TensorSpec, key: TensorSpec, value: TensorSpec, mask: TensorSpec | None, dropout_p: float
) -> bool:
    """Whether eager takes its CPU flash kernel (native/transformers/sdp_utils_cpp.h)."""
    inputs = (query, key, value)
    return (
        dropout_p == 0.0
        and all(x.ndim == 4 and x.stride[-1] == 1 for x in inputs)
        and query.shape[-1] == value.shape[-1]
        and not any(is_empty(x.shape[-2:]) for x in inputs)
        and query.dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16)
        and (mask is None or mask.ndim in (2, 4))
    )


def lstm_cell(x: TensorSpec, state: Any, *_: Any) -> tuple[TensorSpec, TensorSpec]:
    """The new hidden and cell states."""
    return contiguous(state[0].shape, x.dtype), contiguous(state[1].shape, x.dtype)


def cell(x: TensorSpec, state: TensorSpec, *_: Any) -> TensorSpec:
    """``gru_cell``, ``rnn_tanh_cell``."""
    return contiguous(state.shape, x.dtype)


def _match(a: Int, b: Int, op: str) -> None:
    if a != b:
        raise ValueError(f"{op}: inner sizes {a} and {b} differ")


ROWS: tuple[Row, ...] = rows(
    ("linear", linear),
    ("mm", mm),
    ("mv", mv),
    ("dot", dot),
    ("bmm", bmm),
    ("addmm", addmm),
    ("addmv", addmv),
    ("baddbmm", baddbmm),
    ("matmul", matmul),
    ("scaled_dot_product_attention", sdpa),
    ("lstm_cell", lstm_cell),
    ("gru_cell", cell),
    ("rnn_tanh_cell", cell),
    ("rnn_relu_cell", cell),
)
