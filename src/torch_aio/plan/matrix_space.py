"""Batches of matrices seen as (outer, inner, row): the index space of kernels that write rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_aio.ir.symbols import Int
from torch_aio.plan.value import Argument, Value


@dataclass(frozen=True)
class MatrixSpace:
    """``outer`` x ``inner`` matrices of ``rows`` rows; ``strides`` the same three of each operand.

    Strides are bytes.
    """

    outer: Int
    inner: Int
    rows: Int
    strides: tuple[tuple[Int, Int, Int], ...]

    def arguments(self, name: str, operand: int, *, row: bool = True) -> dict[str, Argument]:
        """The stride arguments of the parameter ``name`` for an operand."""
        outer, inner, step = self.strides[operand]
        found: dict[str, Argument] = {f"{name}_outer": outer, f"{name}_inner": inner}
        return {**found, f"{name}_row": step} if row else found


def matrix_space(operands: Sequence[Value], *, merge_rows: bool) -> MatrixSpace | None:
    """The space of values of one shape [..., rows, columns]; None where it needs more dimensions.

    ``merge_rows``: all matrices are multiplied by the same one, so their rows may be joined.
    """
    sizes = operands[0].shape[:-1]
    strides = [value.byte_stride[:-1] for value in operands]
    if merge_rows:
        dims = merged(sizes, strides)
    else:
        dims = merged(sizes[:-1], [s[:-1] for s in strides])
        dims.append((sizes[-1], tuple(s[-1] for s in strides)))
    if len(dims) > 3:
        return None
    nothing = (0,) * len(operands)
    dims = [(1, nothing)] * (3 - len(dims)) + dims
    outer, inner, rows = (size for size, _ in dims)
    return MatrixSpace(outer, inner, rows, tuple(zip(*(s for _, s in dims), strict=True)))


def merged(
    sizes: Sequence[Int], strides: Sequence[Sequence[Int]]
) -> list[tuple[Int, tuple[Int, ...]]]:
    """Dimensions joined where they lie together in every operand: [(size, stride of each)]."""
    dims: list[tuple[Int, tuple[Int, ...]]] = []
    for index, size in enumerate(sizes):
        steps = tuple(s[index] for s in strides)
        if isinstance(size, int) and size == 1:
            continue
        if dims and all(_same(a, b * size) for a, b in zip(dims[-1][1], steps, strict=True)):
            dims[-1] = (dims[-1][0] * size, steps)
        else:
            dims.append((size, steps))
    return dims


def _same(a: Int, b: Int) -> bool:
    """Whether two strides are equal for all sizes: a join is not worth a guard on sizes."""
    difference = a - b
    return isinstance(difference, int) and difference == 0
