"""Shapes of elementwise operators: broadcasting, type promotion, casts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torch_aio.ir.shapes.layout import broadcast, dense_like, formatted, iterate, wrap
from torch_aio.ir.shapes.promotion import float_type, result_type
from torch_aio.ir.shapes.table import Row, rows
from torch_aio.ir.spec import TensorSpec, contiguous


def pointwise(
    *operands: Any, dtype: torch.dtype | None, common: torch.dtype | None = None
) -> TensorSpec:
    """Broadcast ``operands``; those not of the ``common`` dtype are cast first, as eager does."""
    scalar = TensorSpec((), torch.int64, ())
    specs = []
    for x in operands:
        if x is None:
            continue
        spec = x if isinstance(x, TensorSpec) else scalar
        specs.append(dense_like(spec, common) if common not in (None, spec.dtype) else spec)
    return iterate(specs, dtype or result_type(*operands))


def unary(x: TensorSpec, *_: Any, **__: Any) -> TensorSpec:
    """Same dtype; scalar parameters do not promote."""
    return iterate([x], x.dtype)


def unary_float(x: TensorSpec, *_: Any, **__: Any) -> TensorSpec:
    """Integers become the default float."""
    return iterate([x], float_type(x.dtype))


def unary_bool(x: TensorSpec, *_: Any, **__: Any) -> TensorSpec:
    """A mask."""
    return iterate([x], torch.bool)


def binary(x: Any, y: Any, *_: Any, **__: Any) -> TensorSpec:
    """Promoted dtype (``alpha`` and the like do not promote)."""
    common = result_type(x, y)
    return pointwise(x, y, dtype=common, common=common)


def binary_float(x: Any, y: Any, *_: Any, **__: Any) -> TensorSpec:
    """Promoted dtype, integers become floats."""
    common = float_type(result_type(x, y))
    return pointwise(x, y, dtype=common, common=common)


def binary_bool(x: Any, y: Any) -> TensorSpec:
    """A comparison."""
    return pointwise(x, y, dtype=torch.bool, common=result_type(x, y))


def logical(x: Any, y: Any) -> TensorSpec:
    """Logical operators do not cast their operands."""
    return pointwise(x, y, dtype=torch.bool)


def div_mode(x: Any, y: Any, *, rounding_mode: str | None) -> TensorSpec:
    """Division with a rounding mode."""
    return binary_float(x, y) if rounding_mode is None else binary(x, y)


def pow_scalar(x: TensorSpec, exponent: Any) -> TensorSpec:
    """A Python exponent: promoted, then unary."""
    common = result_type(x, exponent)
    return iterate([dense_like(x, common) if common != x.dtype else x], common)


def clamp_scalar(x: TensorSpec, min: Any = None, max: Any = None) -> TensorSpec:
    """Scalar bounds."""
    return iterate([x], result_type(x, min, max))


def ternary(x: Any, *others: Any, **_: Any) -> TensorSpec:
    """lerp, clamp.Tensor: all promoted."""
    tensors = [x, *(o for o in others if o is not None)]
    common = result_type(*tensors)
    return pointwise(*tensors, dtype=common, common=common)


def addc(x: Any, a: Any, b: Any, *, value: Any = 1) -> TensorSpec:
    """addcmul, addcdiv: ``value`` does not promote."""
    return ternary(x, a, b)


def where(condition: TensorSpec, x: Any, y: Any) -> TensorSpec:
    """``where`` over tensors and scalars."""
    common = result_type(x, y)
    values = [
        dense_like(v, common) if isinstance(v, TensorSpec) and v.dtype != common else v
        for v in (x, y)
    ]
    return pointwise(condition, *values, dtype=common)


def masked_fill(x: TensorSpec, mask: TensorSpec, value: Any) -> TensorSpec:
    """Out of place: a contiguous clone of the expanded input."""
    return contiguous(broadcast(x.shape, mask.shape), x.dtype)


def like_input(x: TensorSpec, *_: Any) -> TensorSpec:
    """``hardtanh``, ``relu6``: into ``empty_like``, which keeps strides of sizes of one."""
    return dense_like(x)


def row_major(x: TensorSpec, *_: Any) -> TensorSpec:
    """``log_sigmoid``: always contiguous."""
    return contiguous(x.shape, x.dtype)


def prelu(x: TensorSpec, weight: TensorSpec) -> TensorSpec:
    """The weight is seen along dimension 1."""
    seen = TensorSpec(
        tuple(weight.shape[0] if d == 1 else 1 for d in range(x.ndim))
        if weight.ndim == 1
        else weight.shape,
        weight.dtype,
        tuple(1 if d == 1 and weight.shape[0] != 1 else 0 for d in range(x.ndim))
        if weight.ndim == 1
        else weight.stride,
    )
    return iterate([x, seen], x.dtype)


def glu(x: TensorSpec, dim: int = -1) -> TensorSpec:
    """Half of a dimension gates the other half."""
    d = wrap(dim, x.ndim)
    half = TensorSpec((*x.shape[:d], x.shape[d] // 2, *x.shape[d + 1 :]), x.dtype, x.stride)
    return iterate([half, half], x.dtype)


def to_copy(x: TensorSpec, *, dtype: Any = None, memory_format: Any = None, **_: Any) -> TensorSpec:
    """``_to_copy``: always a copy."""
    return formatted(x, memory_format, dtype)


def to_dtype(
    x: TensorSpec,
    dtype: Any,
    non_blocking: Any = False,
    copy: bool = False,
    memory_format: Any = None,
) -> TensorSpec:
    """``to.dtype``: ``x`` itself where nothing changes."""
    return _to(x, dtype, copy, memory_format)


def to_layout(
    x: TensorSpec, *, dtype: Any = None, copy: bool = False, memory_format: Any = None, **_: Any
) -> TensorSpec:
    """``to.dtype_layout``."""
    return _to(x, dtype, copy, memory_format)


def to_device(
    x: TensorSpec,
    device: Any,
    dtype: Any,
    non_blocking: Any = False,
    copy: bool = False,
    memory_format: Any = None,
) -> TensorSpec:
    """``to.device``."""
    return _to(x, dtype, copy, memory_format)


def to_other(
    x: TensorSpec,
    other: TensorSpec,
    non_blocking: Any = False,
    copy: bool = False,
    memory_format: Any = None,
) -> TensorSpec:
    """``to.other`` and ``type_as``."""
    return _to(x, other.dtype, copy, memory_format)


def to_any(x: TensorSpec, *args: Any, **_: Any) -> TensorSpec:
    """TorchScript's ``to.prim_*``: the dtype is whichever argument is one."""
    dtype = next((a for a in args if isinstance(a, torch.dtype)), None)
    return _to(x, dtype, False, None)


def _to(x: TensorSpec, dtype: torch.dtype | None, copy: bool, memory_format: Any) -> TensorSpec:
    same_format = (
        memory_format in (None, torch.preserve_format)
        or formatted(x, memory_format).stride == x.stride
    )
    if dtype in (None, x.dtype) and not copy and same_format:
        return x
    return formatted(x, memory_format, dtype)


def alias(x: TensorSpec, *_: Any, **__: Any) -> TensorSpec:
    """The tensor itself."""
    return x


UNARY = (
    "abs neg negative sign sgn ceil floor round trunc fix frac relu silu gelu mish hardswish "
    "hardsigmoid elu selu celu leaky_relu softplus softshrink hardshrink tanhshrink threshold "
    "square bitwise_not positive nan_to_num bernoulli softsign rrelu"
)
UNARY_FLOAT = (
    "exp exp2 expm1 log log2 log10 log1p sqrt rsqrt sin cos tan asin acos atan sinh cosh tanh "
    "asinh acosh atanh erf erfc erfinv sigmoid logit reciprocal digamma lgamma sinc "
    "special_expit special_erf special_expm1 special_log1p special_ndtr special_entr i0 "
    "deg2rad rad2deg arctan arcsin arccos"
)
UNARY_BOOL = "logical_not isnan isinf isfinite isposinf isneginf signbit"
BINARY = (
    "add sub subtract mul multiply rsub maximum minimum fmax fmin max.other min.other "
    "remainder fmod bitwise_and bitwise_or bitwise_xor __and__ __or__ __xor__ "
    "pow.Tensor_Tensor pow.Scalar floor_divide bitwise_left_shift heaviside "
    "bitwise_right_shift __lshift__ __rshift__ copysign clamp_min clamp_max"
)
BINARY_FLOAT = "div true_divide divide atan2 arctan2 hypot logaddexp xlogy special_xlog1py"
COMPARE = "eq ne lt le gt ge less less_equal greater greater_equal not_equal"
LOGICAL = "logical_and logical_or logical_xor"
ALIAS = (
    "dropout feature_dropout alpha_dropout feature_alpha_dropout detach alias lift_fresh "
    "lift_fresh_copy"
)


def _all(names: str, function: Callable[..., Any]) -> tuple[Row, ...]:
    return rows(*((name, function) for name in names.split()))


ROWS: tuple[Row, ...] = (
    *_all(UNARY, unary),
    *_all(UNARY_FLOAT, unary_float),
    *_all(UNARY_BOOL, unary_bool),
    *_all(BINARY, binary),
    *_all(BINARY_FLOAT, binary_float),
    *_all(COMPARE, binary_bool),
    *_all(LOGICAL, logical),
    *_all(ALIAS, alias),
    *_all("div.Tensor_mode div.Scalar_mode divide.Tensor_mode divide.Scalar_mode", div_mode),
    *_all("lerp.Scalar", binary),
    *_all("lerp.Tensor", ternary),
    *_all("hardtanh relu6", like_input),
    *_all("log_sigmoid", row_major),
    *_all("addcmul addcdiv", addc),
    *rows(
        ("pow.Tensor_Scalar", pow_scalar),
        ("clamp", clamp_scalar),
        ("clip", clamp_scalar),
        ("clamp.Tensor", ternary),
        ("where", where),
        ("masked_fill", masked_fill),
        ("prelu", prelu),
        ("_prelu_kernel", binary),
        ("glu", glu),
        ("_to_copy", to_copy),
        ("to.dtype", to_dtype),
        ("to.dtype_layout", to_layout),
        ("to.device", to_device),
        ("to.other", to_other),
        ("to.prim_Device", to_any),
        ("to.prim_dtype", to_any),
        ("to.prim_other", to_any),
        ("type_as", to_other),
    ),
)
