"""A chain: a fused elementwise program, body of an elementwise kernel or epilogue of another.

    Chain(inputs=(Input("f32", "full"), Input("f32", "channel"), Input("f32", "full")),
          steps=(Step("add", (0, 1), "f32"), Step("gelu", (3,), "f32"), Step("add", (4, 2), "f32")))

is ``gelu(x + bias) + residual``. Values are numbered: the inputs first, then one per step; the last
one is the result. In an epilogue input 0 is the accumulator, already in registers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch

from torch_aio.codegen.builder import Builder, Size
from torch_aio.codegen.isa import Isa
from torch_aio.codegen.types import Type, Value, bf16, f16, f32, f64, i1, i8, i16, i32, i64, vec
from torch_aio.codegen.vmath import ARITHMETIC, COMPARISONS, LOGICAL, OPS
from torch_aio.codegen.vmath.convert import convert

Access = Literal["full", "channel", "row", "scalar", "strided"]

TYPES: dict[str, Type] = {
    "f16": f16, "bf16": bf16, "f32": f32, "f64": f64,
    "bool": i1, "i8": i8, "i16": i16, "i32": i32, "i64": i64,
}  # fmt: skip
MEMORY = {"bool": i8, "bf16": i16}
"""What stands in memory for types that LLVM cannot load by mask, or calls a library for."""
DTYPES: dict[torch.dtype, str] = {
    torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "f32", torch.float64: "f64",
    torch.bool: "bool", torch.int8: "i8", torch.int16: "i16", torch.int32: "i32",
    torch.int64: "i64",
}  # fmt: skip


@dataclass(frozen=True)
class Input:
    """An operand: its dtype, and whether it varies like the output, per channel, per row or not.

    In an elementwise kernel the access is that of the innermost dimension: full (elements lie
    together), strided (they do not) or scalar (one for all).
    """

    dtype: str
    access: Access


@dataclass(frozen=True)
class Const:
    """A number baked into the code."""

    value: float | int


@dataclass(frozen=True)
class Step:
    """One operation of ``vmath.OPS`` on values (by number) or constants, computed in ``dtype``.

    ``cast`` converts to ``dtype``; comparisons and logic yield bool; ``where`` takes a bool first.
    """

    op: str
    args: tuple[int | Const, ...]
    dtype: str

    @property
    def result(self) -> str:
        """The dtype of the result."""
        return "bool" if self.op in COMPARISONS else self.dtype


@dataclass(frozen=True)
class Chain:
    """Inputs and steps; without steps the result is input 0."""

    inputs: tuple[Input, ...]
    steps: tuple[Step, ...] = ()

    @cached_property
    def name(self) -> str:
        """A short name, unique for the chain: ``bias_gelu_1f3a9c``, ``""`` for the identity."""
        if self == Chain(self.inputs[:1]) and self.inputs[0].dtype == "f32":
            return ""
        words = "_".join(step.op for step in self.steps[:4])
        digest = hashlib.blake2b(repr((self.inputs, self.steps)).encode(), digest_size=5)
        return f"{words or 'copy'}_{digest.hexdigest()}"

    @property
    def result(self) -> str:
        """The dtype of the result."""
        return self.steps[-1].result if self.steps else self.inputs[0].dtype

    @property
    def is_cheap(self) -> bool:
        """Whether memory and not arithmetic bounds the chain: then several vectors go at once."""
        return len(self.steps) <= 4 and all(
            step.op == "cast" or step.op in COMPARISONS or step.op in ARITHMETIC
            for step in self.steps
        )

    def emit(self, k: Builder, inputs: Sequence[Value]) -> Value:
        """The result for input vectors of equal lanes (bools as i1), in the result's dtype.

        Without inputs (a chain of constants) one lane is computed. Half types are computed in f32
        and rounded after every step, as eager does.
        """
        values, lanes = list(inputs), inputs[0].type.lanes if inputs else 0
        for step in self.steps:
            values = [_within(k, value) for value in values]
            values.append(_step(k, step, values, lanes))
        last = values[-1]
        return convert(k, last, vec(TYPES[self.result], last.type.lanes))


def _within(k: Builder, value: Value) -> Value:
    """bf16 as f32: LLVM calls a library for a bf16 that lives from one block to another."""
    is_bf16 = value.type.scalar == bf16
    return convert(k, value, vec(f32, value.type.lanes)) if is_bf16 else value


def _step(k: Builder, step: Step, values: list[Value], lanes: int) -> Value:
    type_ = vec(TYPES[step.dtype], lanes)
    if step.op == "cast":
        return _argument(k, values, step.args[0], type_)
    half = type_.is_float and type_.bits == 16
    compute = vec(f32, lanes) if half else type_
    truth, logical = vec(i1, lanes), step.op in LOGICAL
    args = [
        _argument(k, values, arg, truth if logical or (step.op == "where" and not n) else compute)
        for n, arg in enumerate(step.args)
    ]
    result = OPS[step.op](k, *args)
    return convert(k, result, type_) if half and result.type.is_float else result


def load(
    k: Builder,
    dtype: str,
    lanes: int,
    base: Value,
    *offsets: Size,
    mask: Value | None = None,
) -> Value:
    """A vector of ``dtype`` from memory (bools become i1); only lanes in ``mask`` are touched."""
    type_ = vec(MEMORY.get(dtype, TYPES[dtype]), lanes)
    value = k.masked_load(type_, mask, base, *offsets) if mask else k.load(type_, base, *offsets)
    if dtype == "bf16":
        return k.bitcast(value, vec(bf16, lanes))
    return k.icmp("ne", value, 0) if dtype == "bool" else value


def load_scalar(k: Builder, dtype: str, lanes: int, base: Value, *offsets: Size) -> Value:
    """One element of ``dtype`` in every lane (bools become i1, bf16 f32)."""
    element = k.load(MEMORY.get(dtype, TYPES[dtype]), base, *offsets)
    if dtype == "bf16":
        return k.splat(_within(k, k.bitcast(element, bf16)), lanes)
    value = k.splat(element, lanes)
    return k.icmp("ne", value, 0) if dtype == "bool" else value


def fetch(
    k: Builder, operand: Input, lanes: int, base: Value, *offsets: Size,
    mask: Value | None = None,
) -> Value:  # fmt: skip
    """The operand vector of an epilogue whose vectors run along channels (columns).

    ``base`` plus ``offsets`` is the first element for "full" and "channel", the one element of the
    row for "row", of all for "scalar".
    """
    if operand.access in ("row", "scalar"):
        return load_scalar(k, operand.dtype, lanes, base, *offsets)
    return load(k, operand.dtype, lanes, base, *offsets, mask=mask)


def store(k: Builder, value: Value, base: Value, *offsets: Size, mask: Value | None = None) -> None:
    """A vector to memory (i1 becomes bools), where ``mask``."""
    if value.type.bits == 1:
        value = k.cast(value, i8)
    elif value.type.scalar == bf16:
        value = k.bitcast(value, vec(i16, value.type.lanes))
    if mask:
        k.masked_store(value, mask, base, *offsets)
    else:
        k.store(value, base, *offsets)


def itemsize(dtype: str) -> int:
    """Bytes an element in memory."""
    return TYPES[dtype].bytes


def masks_are_fast(isa: Isa, dtypes: Sequence[str]) -> bool:
    """Whether masked loads and stores of these types are single instructions.

    Elsewhere LLVM makes a branch per lane of them: a scalar loop is better.
    """
    widths = {"avx512": (1, 2, 4, 8), "avx2": (4, 8)}.get(isa.name, ())
    return all(itemsize(dtype) in widths for dtype in dtypes)


def _argument(k: Builder, values: list[Value], arg: int | Const, type_: Type) -> Value:
    if isinstance(arg, Const):
        return k.const(type_, arg.value)
    return convert(k, values[arg], type_)
