"""Kernels that work row by row: operands of a chain along a row, and sweeps over its columns.

A row is ``cols`` elements that lie together. The operands of a chain are parameters by access:

    full     x0:ptr x0_row:int     an element for each column of each row
    channel  x0:ptr                an element for each column, the same in all rows
    row      x0:ptr x0_row:int     an element for each row
    scalar   x0:ptr                one element
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

from torch_aio.codegen.builder import Builder, Size
from torch_aio.codegen.types import Type, Value, f32, f64, vec
from torch_aio.kernels import chain as chains
from torch_aio.kernels.chain import Chain, Input

UNROLL = 4
"""Vectors (and accumulators) a turn: addition takes 3 to 4 cycles, so one accumulator waits."""
BLOCK = 2048
"""Columns summed in f32 before the sum moves to f64: 32 additions a lane on AVX-512, 64 on AVX2."""

COPY = Chain((Input("f32", "full"),))
"""The chain that does nothing."""

Combine = Callable[[Builder, Value, Value], Value]


def params(chain: Chain, prefix: str, first: int = 0) -> str:
    """The declaration of the operands of ``chain`` from input ``first`` on."""
    words = []
    for j, operand in enumerate(chain.inputs[first:], first):
        words.append(f"{prefix}{j}:ptr")
        if operand.access in ("full", "row"):
            words.append(f"{prefix}{j}_row:int")
    return " ".join(words)


class RowOperands:
    """The operands of a chain in one row; those that do not vary in it are loaded once."""

    def __init__(self, k: Builder, chain: Chain, prefix: str, row: Size, first: int = 0) -> None:
        self.k, self.chain = k, chain
        self.pointers: list[Value] = []
        self.fixed: list[Value | None] = []
        for j, operand in enumerate(chain.inputs[first:], first):
            pointer: Value = getattr(k.p, f"{prefix}{j}")
            if operand.access in ("full", "row"):
                pointer = k.at(pointer, k.mul(row, getattr(k.p, f"{prefix}{j}_row")))
            varies = operand.access in ("full", "channel")
            self.pointers.append(pointer)
            self.fixed.append(None if varies else chains.load_scalar(k, operand.dtype, 0, pointer))
        self.inputs = chain.inputs[first:]

    def load(self, column: Size, lanes: int, mask: Value | None = None) -> list[Value]:
        """The operand vectors at ``column``."""
        return [
            self.k.splat(fixed, lanes)
            if fixed is not None
            else chains.load(
                self.k,
                i.dtype,
                lanes,
                pointer,
                self.k.mul(column, chains.itemsize(i.dtype)),
                mask=mask,
            )
            for i, pointer, fixed in zip(self.inputs, self.pointers, self.fixed, strict=True)
        ]

    def value(self, column: Size, lanes: int, mask: Value | None = None, *given: Value) -> Value:
        """The chain's result at ``column``; ``given`` are its first inputs."""
        result = self.chain.emit(self.k, [*given, *self.load(column, lanes, mask)])
        return self.k.splat(result, lanes) if not result.type.lanes else result


Body = Callable[[Size, "Value | None", list[Value]], list[Value]]


def sweep(
    k: Builder,
    start: Size,
    stop: Size,
    body: Body,
    carry: Sequence[Value] = (),
    unroll: int = UNROLL,
) -> list[Value]:
    """``body(column, mask, carried)`` over all columns, a vector at a time.

    The loop takes ``unroll`` vectors a turn; each of them carries its own copy of ``carry``. The
    rest is masked (mask None: all lanes). Returns the copies, vector by vector.
    """
    lanes, width = k.isa.lanes(f32), len(carry)
    count = k.sub(stop, start)
    whole = k.add(start, k.op("and", k.size(count), k.size(-lanes * unroll)))
    with k.loop(start, whole, lanes * unroll, carry=list(carry) * unroll) as l:
        for u in range(unroll):
            own = slice(u * width, (u + 1) * width)
            l.next[own] = body(k.add(l.i, u * lanes), None, l.v[own])
    copies = list(l.v)
    with k.loop(whole, stop, lanes, carry=copies[:width]) as l:
        l.next = body(l.i, k.tail_mask(k.sub(stop, l.i), lanes), l.v)
    return [*l.v, *copies[width:]]


def tree(k: Builder, combine: Combine, values: Sequence[Value]) -> Value:
    """``values`` combined pairwise."""
    level = list(values)
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [combine(k, a, b) for a, b in pairs] + level[len(level) & ~1 :]
    return level[0]


def across(k: Builder, combine: Combine, vector: Value) -> Value:
    """The lanes of a vector combined, as a scalar: halves onto halves."""
    lanes = vector.type.lanes
    while lanes > 1:
        half = lanes // 2
        low = k.shuffle(vector, range(half))
        vector = combine(k, low, k.shuffle(vector, range(half, lanes)))
        lanes = half
    return k.extract(vector, 0) if vector.type.lanes else vector


def total(
    k: Builder, cols: Size, term: Callable[[Size, Value | None], Value], unroll: int = UNROLL
) -> Value:
    """The f64 sum over the columns of f32 vectors ``term(column, mask)``.

    Blocks of columns are summed in f32 and added in f64: the error does not grow with the length.
    """
    lanes = k.isa.lanes(f32)
    zero = k.const(vec(f32, lanes), 0)

    def add(column: Size, mask: Value | None, carried: list[Value]) -> list[Value]:
        value = term(column, mask)
        return [k.fadd(carried[0], k.select(mask, value, zero) if mask else value)]

    with k.loop(0, cols, BLOCK, carry=[k.const(vec(f64, lanes), 0)]) as block:
        stop = k.min(cols, k.add(block.i, BLOCK))
        parts = sweep(k, block.i, stop, add, [zero], unroll)
        wide = k.cast(tree(k, Builder.fadd, parts), f64)
        block.next = [k.fadd(block.v[0], wide)]
    return across(k, Builder.fadd, block.v[0])


def identity(k: Builder, type_: Type, value: float) -> Value:
    """A constant vector of the ISA's f32 lanes."""
    return k.const(vec(type_, k.isa.lanes(f32)), value)


def fold(k: Builder, combine: Combine, copies: Sequence[Value]) -> Value:
    """The carried copies of a sweep combined over copies and lanes, as a scalar."""
    return across(k, combine, reduce(lambda a, b: combine(k, a, b), copies))
