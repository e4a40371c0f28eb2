"""What the kernels that write the channel-blocked layout share: their epilogue and its operands.

Input 0 of an epilogue is the accumulator. Input n is operand ``e<n>`` of the kernel:

    scalar   e1:ptr                                     one number
    channel  e1:ptr e1_batch:int e1_block:int           c values a channel block (a bias: batch 0)
    full     e1:ptr e1_batch:int e1_block:int [...]     blocked like the output, its own strides

Rows of a "full" operand: ``e1_row:int``, or a row of the pixel table of convolution. Strides are
bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch_aio.codegen.builder import Builder, Size
from torch_aio.codegen.types import Value, f32
from torch_aio.kernels import chain as chains
from torch_aio.kernels.chain import Chain, Input, itemsize

ACCUMULATOR = Chain((Input("f32", "full"),))
"""The epilogue that does nothing."""


def operand_params(chain: Chain, rows: bool) -> str:
    """The declaration of the epilogue's operands; ``rows``: "full" ones take a row stride."""
    forms = {
        "scalar": "e{n}:ptr",
        "channel": "e{n}:ptr e{n}_batch:int e{n}_block:int",
        "full": "e{n}:ptr e{n}_batch:int e{n}_block:int" + (" e{n}_row:int" if rows else ""),
    }
    operands = enumerate(chain.inputs[1:], 1)
    return " ".join(forms[operand.access].format(n=n) for n, operand in operands)


def full_operands(chain: Chain) -> list[int]:
    """The numbers of the epilogue's "full" operands."""
    return [n for n, operand in enumerate(chain.inputs) if n and operand.access == "full"]


@dataclass
class Epilogue:
    """A chain applied to vectors of one channel block; make one by ``at``."""

    k: Builder
    chain: Chain
    pointers: list[Value]
    fixed: list[Value | None]
    mask: Value | None

    @staticmethod
    def at(
        k: Builder, chain: Chain, batch: Size, block: Size, lane: Size, channels: Size | None
    ) -> Epilogue:
        """For lanes ``lane``.. of a channel block: operands that all its pixels share are loaded.

        ``channels`` (of the whole output) has lanes past it stored as zero; None: there are none.
        """
        lanes, pointers = k.isa.lanes(f32), []
        fixed: list[Value | None] = []
        for n, operand in enumerate(chain.inputs[1:], 1):
            base: Value = getattr(k.p, f"e{n}")
            if operand.access != "scalar":
                strides = (getattr(k.p, f"e{n}_{name}") for name in ("batch", "block"))
                base = k.at(
                    base, *(k.mul(s, i) for s, i in zip(strides, (batch, block), strict=True))
                )
                base = k.at(base, k.mul(lane, itemsize(operand.dtype)))
            pointers.append(base)
            fixed.append(None if operand.access == "full" else _fixed(k, operand, base, lanes))
        mask = None
        if channels is not None:
            mask = k.tail_mask(k.sub(channels, k.add(k.mul(block, k.isa.block), lane)), lanes)
        return Epilogue(k, chain, pointers, fixed, mask)

    def __call__(self, accumulator: Value, offsets: Sequence[Size]) -> Value:
        """The result; ``offsets`` are the pixel's byte offsets in the "full" operands, in order."""
        values, lanes, rest = [accumulator], accumulator.type.lanes, iter(offsets)
        for operand, pointer, value in zip(
            self.chain.inputs[1:], self.pointers, self.fixed, strict=True
        ):
            if value is None:
                where = self.k.at(pointer, next(rest))
                value = chains.load(self.k, operand.dtype, lanes, where)  # noqa: PLW2901
            values.append(value)
        result = self.chain.emit(self.k, values)
        if self.mask is None:
            return result
        return self.k.select(self.mask, result, self.k.const(result.type, 0))


def _fixed(k: Builder, operand: Input, base: Value, lanes: int) -> Value:
    if operand.access == "channel":
        return chains.load(k, operand.dtype, lanes, base)
    return chains.load_scalar(k, operand.dtype, lanes, base)


@contextmanager
def each_vector(k: Builder) -> Iterator[Size]:
    """A loop over the first lanes of the vectors in a channel block (0 alone where it is one)."""
    lanes = k.isa.lanes(f32)
    if lanes == k.isa.block:
        yield 0
        return
    with k.loop(0, k.isa.block, lanes) as part:
        yield part.i
