"""How PyTorch on CPU lays out what it computes: memory formats, dense strides, TensorIterator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from torch_aio.ir.spec import TensorSpec, contiguous, contiguous_stride
from torch_aio.ir.symbols import Int, product

Shape = tuple[Int, ...]
CHANNELS_LAST = {4: (1, 3, 2, 0), 5: (1, 4, 3, 2, 0)}
FORMAT_RANK = {torch.channels_last: 4, torch.channels_last_3d: 5}


def wrap(dim: int, ndim: int) -> int:
    """``dim`` counted from the front (a 0-d tensor takes 0 and -1)."""
    rank = max(ndim, 1)
    if not -rank <= dim < rank:
        raise IndexError(f"dimension {dim} is out of range for {ndim} dimensions")
    return dim % rank


def is_empty(shape: Shape) -> bool:
    """Whether there are no elements."""
    return any(size == 0 for size in shape)


def is_contiguous(x: TensorSpec) -> bool:
    """``Tensor.is_contiguous()``: row-major, and always true without elements."""
    return is_empty(x.shape) or _in_order(x, range(x.ndim - 1, -1, -1))


def is_channels_last_contiguous(x: TensorSpec) -> bool:
    """``Tensor.is_contiguous(memory_format=torch.channels_last)`` (4-D; 3-d format for 5-D)."""
    return x.ndim in CHANNELS_LAST and _in_order(x, CHANNELS_LAST[x.ndim])


def _in_order(x: TensorSpec, dims: Sequence[int]) -> bool:
    expected: Int = 1
    for d in dims:
        if x.shape[d] != 1:
            if x.stride[d] != expected:
                return False
            expected = expected * x.shape[d]
    return True


def suggests_channels_last(x: TensorSpec) -> bool:
    """Whether ``suggest_memory_format`` names a channels-last format (c10/core/MemoryFormat.h)."""
    if x.ndim not in CHANNELS_LAST or x.stride[1] == 0:
        return False
    low: Int = 0
    for d in CHANNELS_LAST[x.ndim]:
        if x.shape[d] == 0 or x.stride[d] < low or (d == 0 and low == x.stride[1]):
            return False
        low = x.stride[d] * x.shape[d] if x.shape[d] > 1 else x.stride[d]
    return True


def channels_last(shape: Shape, dtype: torch.dtype) -> TensorSpec:
    """A dense channels-last tensor of rank 4 or 5."""
    strides: list[Int] = [0] * len(shape)
    step: Int = 1
    for d in CHANNELS_LAST[len(shape)]:
        strides[d] = step
        step = step * (1 if shape[d] == 0 else shape[d])
    return TensorSpec(tuple(shape), dtype, tuple(strides))


def like_format(shape: Shape, dtype: torch.dtype, *sources: TensorSpec) -> TensorSpec:
    """Channels-last if a source suggests it, else contiguous."""
    if len(shape) in CHANNELS_LAST and any(suggests_channels_last(x) for x in sources):
        return channels_last(shape, dtype)
    return contiguous(shape, dtype)


def is_dense(x: TensorSpec) -> bool:
    """``is_non_overlapping_and_dense``: some order of the dimensions is gapless."""
    if is_contiguous(x) or is_channels_last_contiguous(x):
        return True
    sizes = [(stride, size) for stride, size in zip(x.stride, x.shape, strict=True) if size != 1]
    expected: Int = 1
    for stride, size in _sorted(sizes):
        if stride != expected:
            return False
        expected = expected * size
    return True


def _sorted(pairs: list[tuple[Int, Int]]) -> list[tuple[Int, Int]]:
    out: list[tuple[Int, Int]] = []
    for pair in pairs:
        at = len(out)
        while at and pair[0] < out[at - 1][0]:
            at -= 1
        out.insert(at, pair)
    return out


def _sort(ndim: int, should_swap: Callable[[int, int], int]) -> list[int]:
    """TensorIterator's insertion sort with ambiguous comparisons: fastest dimension first."""
    perm = list(range(ndim - 1, -1, -1))
    for i in range(1, ndim):
        at = i
        for before in range(i - 1, -1, -1):
            order = should_swap(perm[before], perm[at])
            if order > 0:
                perm[before], perm[at] = perm[at], perm[before]
                at = before
            elif order < 0:
                break
    return perm


def _compare(shape: Shape, stride: Shape, a: int, b: int) -> int:
    if stride[a] == 0 or stride[b] == 0:
        return 0
    if stride[a] == stride[b]:
        return 1 if shape[a] > shape[b] else 0
    return -1 if stride[a] < stride[b] else 1


def dense_like(x: TensorSpec, dtype: torch.dtype | None = None) -> TensorSpec:
    """What ``empty_like(x)`` with ``preserve_format`` allocates."""
    dtype = x.dtype if dtype is None else dtype
    if is_dense(x):
        return TensorSpec(x.shape, dtype, x.stride)
    if x.ndim == 1:
        return TensorSpec(x.shape, dtype, (1,))
    strides: list[Int] = [1] * x.ndim
    step: Int = 1
    for d in _sort(x.ndim, lambda a, b: _compare(x.shape, x.stride, a, b)):
        strides[d] = step
        step = step * (x.shape[d] if x.shape[d] > 1 else 1)
    return TensorSpec(x.shape, dtype, tuple(strides))


def formatted(
    x: TensorSpec, memory_format: torch.memory_format | None, dtype: torch.dtype | None = None
) -> TensorSpec:
    """A fresh copy of ``x`` in a memory format (None preserves)."""
    dtype = x.dtype if dtype is None else dtype
    if memory_format is None or memory_format == torch.preserve_format:
        return dense_like(x, dtype)
    if memory_format in FORMAT_RANK:
        if x.ndim != FORMAT_RANK[memory_format]:
            raise ValueError(f"{memory_format} needs {FORMAT_RANK[memory_format]} dimensions")
        return channels_last(x.shape, dtype)
    return contiguous(x.shape, dtype)


def broadcast(*shapes: Shape) -> Shape:
    """The shape these broadcast to; ValueError if they do not."""
    out: list[Int] = [1] * max((len(s) for s in shapes), default=0)
    for shape in shapes:
        for i in range(1, len(shape) + 1):
            ours, theirs = out[-i], shape[-i]
            if _is_one(theirs) or ours == theirs:
                continue
            if not _is_one(ours) and ours != 1:
                if theirs == 1:
                    continue
                raise ValueError(f"shapes {shapes} do not broadcast")
            out[-i] = theirs
    return tuple(out)


def _is_one(size: Int) -> bool:
    return isinstance(size, int) and size == 1


def iterate(operands: Sequence[TensorSpec], dtype: torch.dtype) -> TensorSpec:
    """The output that TensorIterator allocates for these inputs (broadcast, strides inherited)."""
    first = operands[0].shape
    same = all(x.shape == first for x in operands)
    if same:
        if all(is_contiguous(x) for x in operands):
            return contiguous(first, dtype)
        if len(first) == 4 and all(is_channels_last_contiguous(x) for x in operands):
            return channels_last(first, dtype)
        stride = operands[0].stride
        if all(is_dense(x) and x.stride == stride for x in operands):
            return TensorSpec(first, dtype, stride)
    shape = first if same else broadcast(*(x.shape for x in operands))
    return _permuted(shape, [_expanded_stride(x, shape) for x in operands], dtype)


def _expanded_stride(x: TensorSpec, shape: Shape) -> Shape:
    lead = len(shape) - x.ndim
    own = (0 if x.shape[i] == 1 and shape[lead + i] != 1 else x.stride[i] for i in range(x.ndim))
    return (0,) * lead + tuple(own)


def _permuted(shape: Shape, strides: list[Shape], dtype: torch.dtype) -> TensorSpec:
    def should_swap(a: int, b: int) -> int:
        for stride in strides:
            order = _compare(shape, stride, a, b)
            if order:
                return order
        return 0

    perm = _sort(len(shape), should_swap)
    if perm == list(range(len(shape) - 1, -1, -1)):
        return contiguous(shape, dtype)
    out: list[Int] = [0] * len(shape)
    step: Int = 1
    for d in perm:
        out[d] = step
        step = step * shape[d]
    return TensorSpec(shape, dtype, tuple(out))


def view_stride(x: TensorSpec, shape: Shape) -> Shape | None:
    """Strides of ``x`` seen as ``shape`` without a copy, None if that needs one."""
    if not x.shape:
        return (1,) * len(shape)
    if is_empty(x.shape):
        return x.stride if x.shape == shape else contiguous_stride(shape)
    out: list[Int] = [1] * len(shape)
    d = len(shape) - 1
    base: Int = x.stride[-1]
    chunk: Int = 1
    seen: Int = 1
    for i in range(x.ndim - 1, -1, -1):
        chunk = chunk * x.shape[i]
        if i and (x.shape[i - 1] == 1 or x.stride[i - 1] == chunk * base):
            continue
        while d >= 0 and (shape[d] == 1 or (chunk != seen and seen < chunk)):
            out[d] = seen * base
            seen = seen * shape[d]
            d -= 1
        if seen != chunk:
            return None
        if i:
            base, chunk, seen = x.stride[i - 1], 1, 1
    return tuple(out) if d == -1 else None


def resolve_shape(shape: Sequence[Int], numel: Int) -> Shape:
    """``shape`` with its -1 replaced."""
    out = list(shape)
    holes = [i for i, size in enumerate(out) if isinstance(size, int) and size == -1]
    if len(holes) > 1:
        raise ValueError("only one dimension can be inferred")
    if holes:
        known = product([s for i, s in enumerate(out) if i != holes[0]])
        out[holes[0]] = numel // known
    if product(out) != numel:
        raise ValueError(f"shape {tuple(shape)} is invalid for {numel} elements")
    return tuple(out)
