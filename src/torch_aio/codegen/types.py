"""The types and values of generated code."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Type:
    """A scalar (``lanes == 0``) or vector type; ``kind`` is f, bf, i, ptr; ``bits`` an element."""

    kind: str
    bits: int
    lanes: int = 0

    @property
    def scalar(self) -> Type:
        """The element type."""
        return Type(self.kind, self.bits)

    @property
    def bytes(self) -> int:
        """The size in memory of one element (i1 has no memory form of its own: 1 byte)."""
        return max(self.bits // 8, 1)

    @property
    def is_float(self) -> bool:
        """Whether elements are floating point."""
        return self.kind in ("f", "bf")

    @property
    def text(self) -> str:
        """The type as LLVM spells it."""
        name = _NAMES.get((self.kind, self.bits)) or f"i{self.bits}"
        return f"<{self.lanes} x {name}>" if self.lanes else name

    @property
    def mangled(self) -> str:
        """The type in the name of an overloaded intrinsic."""
        name = f"{self.kind}{self.bits}" if self.kind != "ptr" else "p0"
        return f"v{self.lanes}{name}" if self.lanes else name


_NAMES = {("f", 16): "half", ("bf", 16): "bfloat", ("f", 32): "float", ("f", 64): "double",
          ("ptr", 64): "ptr"}  # fmt: skip

f16, f32, f64 = Type("f", 16), Type("f", 32), Type("f", 64)
bf16 = Type("bf", 16)
i1, i8, i16, i32, i64 = (Type("i", bits) for bits in (1, 8, 16, 32, 64))
ptr = Type("ptr", 64)

OF_DTYPE = {
    torch.float32: f32, torch.float64: f64, torch.float16: f16, torch.bfloat16: bf16,
    torch.int64: i64, torch.int32: i32, torch.int16: i16, torch.int8: i8, torch.bool: i8,
}  # fmt: skip


def vec(element: Type, lanes: int) -> Type:
    """The vector of ``lanes`` elements (the element itself for 0 lanes)."""
    return Type(element.kind, element.bits, lanes)


@dataclass(frozen=True)
class Value:
    """An SSA value or a constant: its type and how it is spelled."""

    type: Type
    text: str


def literal(element: Type, value: float) -> str:
    """A scalar constant, spelled exactly (floats in hexadecimal)."""
    if not element.is_float:
        return str(int(value))
    if element.bits == 16:
        if element.kind == "bf":
            return f"0xR{struct.unpack('>I', struct.pack('>f', value))[0] >> 16:04X}"
        return f"0xH{struct.unpack('>H', struct.pack('>e', value))[0]:04X}"
    if element.bits == 32 and math.isfinite(value):
        value = struct.unpack("f", struct.pack("f", value))[0]
    return f"0x{struct.unpack('>Q', struct.pack('>d', value))[0]:016X}"
