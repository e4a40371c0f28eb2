"""Conversions between element types as eager makes them."""

from __future__ import annotations

from torch_aio.codegen.builder import Builder
from torch_aio.codegen.types import Type, Value, bf16, f32, i16, i32, vec


def convert(k: Builder, value: Value, type_: Type) -> Value:
    """``value`` in the element type of ``type_``; numbers become truth values by comparison with 0.

    Floats reach small integers through i32, as a C++ cast does: out of range the low bits remain.
    bf16 is converted by its bits, since LLVM calls a library for it.
    """
    source, target = value.type.scalar, type_.scalar
    lanes = value.type.lanes
    if source == target:
        return value
    if target.bits == 1:
        zero = k.const(value.type, 0)
        return k.fcmp("une", value, zero) if source.is_float else k.icmp("ne", value, 0)
    if source == bf16:
        return convert(k, _from_bf16(k, value), type_)
    if target == bf16:
        return _to_bf16(k, convert(k, value, vec(f32, lanes)))
    if source.is_float and not target.is_float and target.bits < 32:
        return k.cast(k.cast(value, vec(i32, lanes)), type_)
    return k.cast(value, type_)


def _from_bf16(k: Builder, value: Value) -> Value:
    lanes = value.type.lanes
    wide = k.cast(k.bitcast(value, vec(i16, lanes)), i32)  # the extended sign is shifted out
    return k.bitcast(k.op("shl", wide, k.const(wide.type, 16)), vec(f32, lanes))


def _to_bf16(k: Builder, value: Value) -> Value:
    """Rounded half to even; NaN stays NaN."""
    integer = vec(i32, value.type.lanes)
    bits = k.bitcast(value, integer)
    odd = k.op("and", k.op("lshr", bits, k.const(integer, 16)), k.const(integer, 1))
    rounded = k.op("add", bits, k.op("add", odd, k.const(integer, 0x7FFF)))
    rounded = k.select(k.fcmp("uno", value, value), k.const(integer, 0x7FC00000), rounded)
    high = k.cast(k.op("lshr", rounded, k.const(integer, 16)), i16)
    return k.bitcast(high, vec(bf16, value.type.lanes))
