"""The epilogue of kernels that write rows of a matrix: a chain over the vectors of one row.

Input 0 is the accumulator. Input n is operand ``e<n>`` of the kernel; strides are bytes, columns
lie together:

    scalar   e1:ptr                                      one number
    channel  e1:ptr e1_outer:int e1_inner:int            one number a column (a bias: strides 0)
    row      e1:ptr e1_outer:int e1_inner:int e1_row:int one number a row
    full     e1:ptr e1_outer:int e1_inner:int e1_row:int
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_aio.codegen.builder import Builder, Size
from torch_aio.codegen.types import Value
from torch_aio.kernels import chain as chains
from torch_aio.kernels.chain import TYPES, Chain, Input

ACCUMULATOR = Chain((Input("f32", "full"),))
"""The epilogue that does nothing."""

_FORMS = {
    "scalar": "e{n}:ptr",
    "channel": "e{n}:ptr e{n}_outer:int e{n}_inner:int",
    "row": "e{n}:ptr e{n}_outer:int e{n}_inner:int e{n}_row:int",
    "full": "e{n}:ptr e{n}_outer:int e{n}_inner:int e{n}_row:int",
}


def operand_params(chain: Chain) -> str:
    """The declaration of the epilogue's operands."""
    operands = enumerate(chain.inputs[1:], 1)
    return " ".join(_FORMS[operand.access].format(n=n) for n, operand in operands)


def itemsize(dtype: str) -> int:
    """Bytes of an element of a chain's dtype."""
    return TYPES[dtype].bytes


@dataclass
class MatrixEpilogue:
    """A chain applied to rows of one matrix of a batch; make one by ``at``."""

    k: Builder
    chain: Chain
    pointers: list[Value]

    @staticmethod
    def at(k: Builder, chain: Chain, outer: Size, inner: Size) -> MatrixEpilogue:
        """For the matrix ``(outer, inner)`` of the batch."""
        pointers = []
        for n, operand in enumerate(chain.inputs[1:], 1):
            base: Value = getattr(k.p, f"e{n}")
            if operand.access != "scalar":
                strides = getattr(k.p, f"e{n}_outer"), getattr(k.p, f"e{n}_inner")
                base = k.at(base, k.mul(strides[0], outer), k.mul(strides[1], inner))
            pointers.append(base)
        return MatrixEpilogue(k, chain, pointers)

    def store(
        self, accumulator: Value, c_row: Value, row: Size, column: Size, mask: Value | None = None
    ) -> None:
        """Store the result for the columns from ``column`` of row ``row`` to ``c_row``.

        ``mask``: the lanes that exist; no other is read or written.
        """
        values = [accumulator]
        operands = zip(self.chain.inputs[1:], self.pointers, strict=True)
        for n, (operand, pointer) in enumerate(operands, 1):
            values.append(self._operand(n, operand, pointer, (row, column), mask, accumulator))
        result = self.chain.emit(self.k, values)
        where = self.k.at(c_row, self.k.mul(column, itemsize(self.chain.result)))
        chains.store(self.k, result, where, mask=mask)

    def _operand(
        self, n: int, operand: Input, pointer: Value, place: Sequence[Size], mask: Value | None,
        like: Value,
    ) -> Value:  # fmt: skip
        k, (row, column), lanes = self.k, place, like.type.lanes
        if operand.access in ("row", "full"):
            pointer = k.at(pointer, k.mul(getattr(k.p, f"e{n}_row"), row))
        if operand.access in ("scalar", "row"):
            return chains.load_scalar(k, operand.dtype, lanes, pointer)
        pointer = k.at(pointer, k.mul(column, itemsize(operand.dtype)))
        return chains.load(k, operand.dtype, lanes, pointer, mask=mask)
