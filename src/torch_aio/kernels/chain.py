"""A chain: a fused elementwise program, the body of an elementwise kernel or the epilogue of another.

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

from torch_aio.codegen.builder import Builder
from torch_aio.codegen.types import Type, Value, bf16, f16, f32, f64, i1, i8, i16, i32, i64, vec
from torch_aio.codegen.vmath import COMPARISONS, OPS

Access = Literal["full", "channel", "row", "scalar"]

TYPES: dict[str, Type] = {
    "f16": f16, "bf16": bf16, "f32": f32, "f64": f64,
    "bool": i1, "i8": i8, "i16": i16, "i32": i32, "i64": i64,
}  # fmt: skip
DTYPES: dict[torch.dtype, str] = {
    torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "f32", torch.float64: "f64",
    torch.bool: "bool", torch.int8: "i8", torch.int16: "i16", torch.int32: "i32", torch.int64: "i64",
}  # fmt: skip


@dataclass(frozen=True)
class Input:
    """An operand: its dtype, and whether it varies like the output, per channel (column), row or not."""

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
        """A short name that is unique for the chain: ``bias_gelu_1f3a9c``, ``""`` for the identity."""
        if self == Chain(self.inputs[:1]) and self.inputs[0].dtype == "f32":
            return ""
        words = "_".join(step.op for step in self.steps[:4])
        digest = hashlib.blake2b(repr((self.inputs, self.steps)).encode(), digest_size=5)
        return f"{words or 'copy'}_{digest.hexdigest()}"

    @property
    def result(self) -> str:
        """The dtype of the result."""
        return self.steps[-1].result if self.steps else self.inputs[0].dtype

    def emit(self, k: Builder, inputs: Sequence[Value]) -> Value:
        """The result for input vectors of equal lanes (bools as i1), in the result's dtype."""
        values, lanes = list(inputs), inputs[0].type.lanes
        for step in self.steps:
            type_ = vec(TYPES[step.dtype], lanes)
            first_is_mask = step.op == "where"
            args = [
                _argument(k, values, arg, vec(i1, lanes) if first_is_mask and n == 0 else type_)
                for n, arg in enumerate(step.args)
            ]
            values.append(args[0] if step.op == "cast" else OPS[step.op](k, *args))
        return values[-1] if self.steps else values[0]


def load(k: Builder, dtype: str, lanes: int, base: Value, offset: int | Value = 0) -> Value:
    """A vector of ``dtype`` from memory (bools become i1)."""
    if dtype == "bool":
        return k.icmp("ne", k.load(vec(i8, lanes), base, offset), 0)
    return k.load(vec(TYPES[dtype], lanes), base, offset)


def store(k: Builder, value: Value, base: Value, offset: int | Value = 0) -> None:
    """A vector to memory (i1 becomes bools)."""
    k.store(k.cast(value, i8) if value.type.bits == 1 else value, base, offset)


def _argument(k: Builder, values: list[Value], arg: int | Const, type_: Type) -> Value:
    if isinstance(arg, Const):
        return k.const(type_, arg.value)
    value = values[arg]
    if type_.bits == 1 and value.type.bits != 1:
        if value.type.is_float:
            return k.fcmp("une", value, k.const(value.type, 0))
        return k.icmp("ne", value, 0)
    return k.cast(value, type_)
