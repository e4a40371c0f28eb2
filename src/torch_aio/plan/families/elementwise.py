"""Rows of elementwise operators: each appends steps to the chain of its group."""

from __future__ import annotations

import torch

from torch_aio.plan.families.chain_steps import (
    binary,
    bitwise,
    cast,
    clamp,
    compare,
    divide,
    elu,
    gelu,
    leaky_relu,
    logical,
    masked_fill,
    power,
    softplus,
    test,
    unary,
    where,
)
from torch_aio.plan.families.dtypes import arithmetic, division, floats, numbers, supported
from torch_aio.plan.families.fused import row
from torch_aio.plan.row import Row

aten = torch.ops.aten

UNARY = {
    aten.relu.default: "relu", aten.sigmoid.default: "sigmoid", aten.tanh.default: "tanh",
    aten.silu.default: "silu", aten.exp.default: "exp", aten.exp2.default: "exp2",
    aten.expm1.default: "expm1", aten.log.default: "log", aten.log2.default: "log2",
    aten.log10.default: "log10", aten.log1p.default: "log1p", aten.sqrt.default: "sqrt",
    aten.rsqrt.default: "rsqrt", aten.reciprocal.default: "reciprocal", aten.erf.default: "erf",
    aten.sin.default: "sin", aten.cos.default: "cos", aten.hardswish.default: "hardswish",
    aten.hardsigmoid.default: "hardsigmoid", aten.mish.default: "mish",
    aten.floor.default: "floor", aten.ceil.default: "ceil", aten.trunc.default: "trunc",
    aten.round.default: "round",
}  # fmt: skip
UNARY_NUMBERS = {aten.neg.default: "neg", aten.abs.default: "abs", aten.sign.default: "sign"}
BINARY = {
    aten.add.Tensor: "add", aten.sub.Tensor: "sub", aten.mul.Tensor: "mul",
    aten.add.Scalar: "add", aten.sub.Scalar: "sub", aten.mul.Scalar: "mul",
    aten.maximum.default: "max", aten.minimum.default: "min",
}  # fmt: skip
COMPARE = {
    f"{name}": (getattr(aten, name).Tensor, getattr(aten, name).Scalar)
    for name in ("eq", "ne", "lt", "le", "gt", "ge")
}
BITWISE = {
    aten.bitwise_and.Tensor: "and", aten.bitwise_or.Tensor: "or", aten.bitwise_xor.Tensor: "xor",
    aten.bitwise_and.Scalar: "and", aten.bitwise_or.Scalar: "or", aten.bitwise_xor.Scalar: "xor",
    aten.bitwise_not.default: "not",
}  # fmt: skip
LOGICAL = {
    aten.logical_and.default: "and", aten.logical_or.default: "or",
    aten.logical_xor.default: "xor", aten.logical_not.default: "not",
}  # fmt: skip
TESTS = {aten.isnan.default: "isnan", aten.isinf.default: "isinf"}

ROWS: tuple[Row, ...] = (
    *(row(op, unary(name), supported(name)) for op, name in UNARY.items()),
    *(row(op, unary(name), numbers) for op, name in UNARY_NUMBERS.items()),
    *(row(op, binary(name), arithmetic(name)) for op, name in BINARY.items()),
    *(row(op, compare(name)) for name, ops in COMPARE.items() for op in ops),
    *(row(op, bitwise(name)) for op, name in BITWISE.items()),
    *(row(op, logical(name)) for op, name in LOGICAL.items()),
    *(row(op, test(name)) for op, name in TESTS.items()),
    row(aten.div.Tensor, divide, division),
    row(aten.div.Scalar, divide, division),
    row(aten.div.Tensor_mode, divide, division),
    row(aten.clamp.default, clamp, numbers),
    row(aten.hardtanh.default, clamp, floats),
    row(aten.gelu.default, gelu, supported("gelu")),
    row(aten.leaky_relu.default, leaky_relu, floats),
    row(aten.elu.default, elu, supported("elu")),
    row(aten.softplus.default, softplus, supported("softplus")),
    row(aten.pow.Tensor_Scalar, power, supported("pow")),
    row(aten.where.self, where),
    row(aten.masked_fill.Scalar, masked_fill),
    row(aten.masked_fill.Tensor, masked_fill),
    row(aten._to_copy.default, cast),
    row(aten.clone.default, cast),
)
