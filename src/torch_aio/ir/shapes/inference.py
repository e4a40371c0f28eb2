"""``infer``: the spec of a call from the specs of its arguments."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Union

import torch

from torch_aio.ir.shapes import (
    contraction,
    creation,
    indexing,
    pieces,
    pointwise,
    reduction,
    view,
    window,
)
from torch_aio.ir.shapes.table import ShapeFunction
from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Expr

Spec = Union[  # noqa: UP007 - refers to itself
    TensorSpec, tuple["Spec", ...], int, float, bool, Expr
]

SHAPES: dict[str, ShapeFunction] = dict(
    (
        *pointwise.ROWS,
        *reduction.ROWS,
        *contraction.ROWS,
        *window.ROWS,
        *view.ROWS,
        *pieces.ROWS,
        *indexing.ROWS,
        *creation.ROWS,
    )
)
_found: dict[Any, ShapeFunction | None] = {}


def infer(target: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Spec:
    """What ``target`` returns for these arguments, with eager's shapes, dtypes and strides.

    ``args`` and ``kwargs`` hold a ``TensorSpec`` for each tensor, sizes may be symbolic. Operators
    without a shape function are run on meta tensors if all sizes are numbers, otherwise
    NotImplementedError names the operator. Wrong arguments raise as eager would (ValueError ...).
    """
    function = shape_function(target)
    if function is not None:
        return function(*args, **kwargs)  # type: ignore[no-any-return]
    return _on_meta(target, args, kwargs)


def shape_function(target: Callable[..., Any]) -> ShapeFunction | None:
    """The table's function for ``target``, None if it has none."""
    try:
        return _found[target]
    except KeyError:
        _found[target] = _look_up(target)
        return _found[target]


def _look_up(target: Any) -> ShapeFunction | None:
    if isinstance(target, torch._ops.OpOverload):
        name = target._schema.name
        exact = SHAPES.get(f"{name}.{target._overloadname}")
        general = SHAPES.get(name)
        return exact or (None if target._overloadname.startswith("out") else general)
    if getattr(target, "__module__", "") == "_operator" or target in (min, max):
        return _python(target)
    return None


def _python(target: Callable[..., Any]) -> ShapeFunction:
    """``getitem`` on tuples and arithmetic on ints work on specs as they are."""
    return operator.getitem if target is operator.getitem else target


def _on_meta(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Spec:
    if not isinstance(target, torch._ops.OpOverload):
        raise NotImplementedError(f"no shape function for {target}")
    if _symbolic(args) or _symbolic(list(kwargs.values())):
        raise NotImplementedError(f"no shape function for {target} with symbolic sizes")
    metas = _to_meta(list(args))
    named = {k: torch.device("meta") if k == "device" else _to_meta(v) for k, v in kwargs.items()}
    with torch.no_grad():
        try:
            result: Spec = _from_meta(target(*metas, **named))
        except NotImplementedError as error:
            raise NotImplementedError(f"no shape function for {target}: {error}") from error
    return result


def _symbolic(value: Any) -> bool:
    if isinstance(value, TensorSpec):
        return _symbolic(value.shape) or _symbolic(value.stride)
    if isinstance(value, (list, tuple)):
        return any(_symbolic(v) for v in value)
    return isinstance(value, Expr)


def _to_meta(value: Any) -> Any:
    if isinstance(value, TensorSpec):
        shape: Any = value.shape
        stride: Any = value.stride
        return torch.empty_strided(shape, stride, dtype=value.dtype, device="meta")
    if isinstance(value, (list, tuple)):
        return type(value)(_to_meta(v) for v in value)
    return value


def _from_meta(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return TensorSpec(tuple(value.shape), value.dtype, tuple(value.stride()))
    if isinstance(value, (list, tuple)):
        return tuple(_from_meta(v) for v in value)
    return value


def spec_of(tensor: torch.Tensor) -> TensorSpec:
    """The spec of a real tensor."""
    return TensorSpec(tuple(tensor.shape), tensor.dtype, tuple(tensor.stride()))
