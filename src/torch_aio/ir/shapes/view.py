"""Shapes and strides of views, and of copies that rearrange."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_aio.ir.shapes.layout import (
    resolve_shape,
    view_stride,
    wrap,
)
from torch_aio.ir.shapes.table import Row, rows
from torch_aio.ir.spec import TensorSpec, contiguous
from torch_aio.ir.symbols import Int, maximum, minimum, product

END = 2**63 - 1


def view(x: TensorSpec, shape: Sequence[Int]) -> TensorSpec:
    """``view``: ValueError where strides forbid it."""
    wanted = resolve_shape(shape, x.numel)
    stride = view_stride(x, wanted)
    if stride is None:
        raise ValueError(f"cannot view {x} as {wanted} without a copy")
    return TensorSpec(wanted, x.dtype, stride)


def reshape(x: TensorSpec, shape: Sequence[Int]) -> TensorSpec:
    """A view where possible, else a contiguous copy."""
    wanted = resolve_shape(shape, x.numel)
    stride = view_stride(x, wanted)
    return contiguous(wanted, x.dtype) if stride is None else TensorSpec(wanted, x.dtype, stride)


def view_as(x: TensorSpec, other: TensorSpec) -> TensorSpec:
    """``view_as``."""
    return view(x, other.shape)


def reshape_as(x: TensorSpec, other: TensorSpec) -> TensorSpec:
    """``reshape_as``."""
    return reshape(x, other.shape)


def flatten(x: TensorSpec, start_dim: int = 0, end_dim: int = -1) -> TensorSpec:
    """``flatten.using_ints``."""
    first, last = wrap(start_dim, x.ndim), wrap(end_dim, x.ndim)
    if x.ndim == 0:
        return reshape(x, (1,))
    if first == last:
        return x
    return reshape(x, (*x.shape[:first], product(x.shape[first : last + 1]), *x.shape[last + 1 :]))


def unflatten(x: TensorSpec, dim: int, sizes: Sequence[Int]) -> TensorSpec:
    """``unflatten.int``."""
    d = wrap(dim, x.ndim)
    return view(x, (*x.shape[:d], *resolve_shape(sizes, x.shape[d]), *x.shape[d + 1 :]))


def permute(x: TensorSpec, dims: Sequence[int]) -> TensorSpec:
    """Dimensions in another order."""
    order = [wrap(d, x.ndim) for d in dims]
    return TensorSpec(tuple(x.shape[d] for d in order), x.dtype, tuple(x.stride[d] for d in order))


def transpose(x: TensorSpec, dim0: int, dim1: int) -> TensorSpec:
    """Two dimensions swapped."""
    if x.ndim == 0:
        return x
    order = list(range(x.ndim))
    a, b = wrap(dim0, x.ndim), wrap(dim1, x.ndim)
    order[a], order[b] = b, a
    return permute(x, order)


def t(x: TensorSpec) -> TensorSpec:
    """``t`` of a matrix."""
    return transpose(x, 0, 1) if x.ndim == 2 else x


def reverse(x: TensorSpec) -> TensorSpec:
    """``numpy_T``."""
    return permute(x, range(x.ndim - 1, -1, -1))


def m_t(x: TensorSpec) -> TensorSpec:
    """``mT``."""
    return transpose(x, -2, -1)


def movedim(x: TensorSpec, source: Any, destination: Any) -> TensorSpec:
    """``movedim``."""
    taken = [source] if isinstance(source, int) else list(source)
    placed = [destination] if isinstance(destination, int) else list(destination)
    taken, placed = [wrap(d, x.ndim) for d in taken], [wrap(d, x.ndim) for d in placed]
    rest = iter(d for d in range(x.ndim) if d not in taken)
    return permute(
        x, [taken[placed.index(d)] if d in placed else next(rest) for d in range(x.ndim)]
    )


def expand(x: TensorSpec, size: Sequence[Int], *, implicit: bool = False) -> TensorSpec:
    """Sizes of one grow by a stride of 0."""
    lead = len(size) - x.ndim
    shape: list[Int] = []
    stride: list[Int] = []
    for i, want in enumerate(size):
        if i < lead:
            shape.append(want)
            stride.append(0)
            continue
        have, step = x.shape[i - lead], x.stride[i - lead]
        keep = (isinstance(want, int) and want == -1) or have == want
        if not keep and have != 1:
            raise ValueError(f"cannot expand {x.shape} to {tuple(size)}")
        shape.append(have if keep else want)
        stride.append(step if keep else 0)
    return _lead_strides(x, tuple(shape), stride, lead)


def _lead_strides(
    x: TensorSpec, shape: tuple[Int, ...], stride: list[Int], lead: int
) -> TensorSpec:
    # Eager gives a new leading dimension of size 1 the stride of a contiguous one, others 0.
    for i in range(lead - 1, -1, -1):
        if shape[i] == 1:
            stride[i] = shape[i + 1] * stride[i + 1] if i + 1 < len(shape) else 1
    return TensorSpec(shape, x.dtype, tuple(stride))


def expand_as(x: TensorSpec, other: TensorSpec) -> TensorSpec:
    """``expand_as``."""
    return expand(x, other.shape)


def slice_(
    x: TensorSpec, dim: int = 0, start: Int | None = None, end: Int | None = None, step: int = 1
) -> TensorSpec:
    """Python's slicing of one dimension, with clamped ends."""
    d = wrap(dim, x.ndim)
    size = x.shape[d]
    first = _clamp(0 if start is None else start, size)
    last = size if _is_end(end) else _clamp(end, size)  # type: ignore[arg-type]
    count = maximum(last - first, 0) if isinstance(last - first, int) else _positive(last - first)
    if step != 1:
        count = (count + step - 1) // step
    return TensorSpec(
        (*x.shape[:d], count, *x.shape[d + 1 :]),
        x.dtype,
        (*x.stride[:d], x.stride[d] * step, *x.stride[d + 1 :]),
    )


def _is_end(end: Int | None) -> bool:
    return end is None or (isinstance(end, int) and end >= END)


def _clamp(position: Int, size: Int) -> Int:
    if position is size or (not isinstance(position, int) and position == size):
        return size
    if position < 0:
        position = position + size
        return 0 if position < 0 else position
    if isinstance(position, int) and isinstance(size, int):
        return minimum(position, size)
    return (
        0 if isinstance(position, int) and position == 0 else size if position > size else position
    )


def _positive(count: Int) -> Int:
    return 0 if count < 0 else count


def narrow(x: TensorSpec, dim: int, start: Int, length: Int) -> TensorSpec:
    """``narrow``: exactly ``length`` positions."""
    d = wrap(dim, x.ndim)
    return TensorSpec((*x.shape[:d], length, *x.shape[d + 1 :]), x.dtype, x.stride)


def select(x: TensorSpec, dim: int, index: Int) -> TensorSpec:
    """One position of a dimension, which goes."""
    d = wrap(dim, x.ndim)
    if (
        isinstance(index, int)
        and isinstance(x.shape[d], int)
        and not -x.shape[d] <= index < x.shape[d]
    ):
        raise IndexError(f"index {index} is out of bounds for size {x.shape[d]}")
    return TensorSpec(
        (*x.shape[:d], *x.shape[d + 1 :]), x.dtype, (*x.stride[:d], *x.stride[d + 1 :])
    )


def squeeze(x: TensorSpec) -> TensorSpec:
    """All sizes of one go."""
    return _without(x, {d for d in range(x.ndim) if x.shape[d] == 1})


def squeeze_dim(x: TensorSpec, dim: int | Sequence[int]) -> TensorSpec:
    """The named dimensions go where their size is one."""
    dims = [dim] if isinstance(dim, int) else list(dim)
    named = {wrap(d, x.ndim) for d in dims}
    return _without(x, {d for d in named if d < x.ndim and x.shape[d] == 1})


def _without(x: TensorSpec, gone: set[int]) -> TensorSpec:
    kept = [d for d in range(x.ndim) if d not in gone]
    return TensorSpec(tuple(x.shape[d] for d in kept), x.dtype, tuple(x.stride[d] for d in kept))


def unsqueeze(x: TensorSpec, dim: int) -> TensorSpec:
    """A new dimension of size one."""
    d = wrap(dim, x.ndim + 1)
    step = x.shape[d] * x.stride[d] if d < x.ndim else 1
    return TensorSpec(
        (*x.shape[:d], 1, *x.shape[d:]), x.dtype, (*x.stride[:d], step, *x.stride[d:])
    )


def diagonal(x: TensorSpec, offset: int = 0, dim1: int = 0, dim2: int = 1) -> TensorSpec:
    """``diagonal``."""
    a, b = wrap(dim1, x.ndim), wrap(dim2, x.ndim)
    rows_, columns = (
        (x.shape[a], x.shape[b] - offset) if offset >= 0 else (x.shape[a] + offset, x.shape[b])
    )
    rest = _without(x, {a, b})
    size = maximum(minimum(rows_, columns), 0)
    return TensorSpec((*rest.shape, size), x.dtype, (*rest.stride, x.stride[a] + x.stride[b]))


ROWS: tuple[Row, ...] = rows(
    ("view", view),
    ("_unsafe_view", view),
    ("reshape", reshape),
    ("view_as", view_as),
    ("reshape_as", reshape_as),
    ("flatten.using_ints", flatten),
    ("unflatten.int", unflatten),
    ("permute", permute),
    ("transpose.int", transpose),
    ("swapaxes", transpose),
    ("swapdims", transpose),
    ("t", t),
    ("numpy_T", reverse),
    ("mT", m_t),
    ("movedim", movedim),
    ("expand", expand),
    ("expand_as", expand_as),
    ("slice.Tensor", slice_),
    ("narrow", narrow),
    ("select.int", select),
    ("squeeze", squeeze),
    ("squeeze.dim", squeeze_dim),
    ("squeeze.dims", squeeze_dim),
    ("unsqueeze", unsqueeze),
    ("diagonal", diagonal),
)
