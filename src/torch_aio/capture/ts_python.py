"""TorchScript operators that are done in Python while the graph is walked.

Three tables by operator kind: questions about a tensor (QUERIES), generic containers
(CONTAINERS) and arithmetic with symbolic sizes (ARITHMETIC). ``torch.ops`` copies lists and
refuses generic ones, so containers cannot be left to it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch

from torch_aio.capture.ts_codes import code_of, memory_format_of
from torch_aio.capture.ts_values import DataDependent, Number, Value, contains
from torch_aio.ir.shapes.layout import is_channels_last_contiguous, is_contiguous
from torch_aio.ir.symbols import Expr, Int, maximum, minimum


def _size(x: Value, dim: int | None = None) -> Any:
    return list(x.spec.shape) if dim is None else x.spec.shape[dim]


def _stride(x: Value, dim: int | None = None) -> Any:
    return list(x.spec.stride) if dim is None else x.spec.stride[dim]


def _is_contiguous(x: Value, memory_format: Any = 0) -> bool:
    wanted = memory_format_of(memory_format)
    if wanted == torch.contiguous_format:
        return is_contiguous(x.spec)
    return is_channels_last_contiguous(x.spec)


def _false(_: Value) -> bool:
    return False


QUERIES: dict[str, Callable[..., Any]] = {
    "aten::size": _size,
    "aten::stride": _stride,
    "aten::dim": lambda x: x.spec.ndim,
    "aten::ndimension": lambda x: x.spec.ndim,
    "prim::ndim": lambda x: x.spec.ndim,
    "aten::len": lambda x: x.spec.shape[0],
    "aten::numel": lambda x: x.spec.numel,
    "prim::shape": _size,
    "prim::dtype": lambda x: code_of(x.spec.dtype),
    "prim::device": lambda _: torch.device("cpu"),
    "prim::layout": lambda _: 0,
    "prim::type": lambda _: "cpu",
    "aten::get_device": lambda _: -1,
    "aten::element_size": lambda x: x.spec.dtype.itemsize,
    "aten::is_floating_point": lambda x: x.spec.dtype.is_floating_point,
    "aten::is_complex": lambda x: x.spec.dtype.is_complex,
    "aten::is_contiguous": _is_contiguous,
    "aten::is_same_size": lambda x, y: x.spec.shape == y.spec.shape,
    "aten::__is__": operator.is_,
    "aten::__isnot__": operator.is_not,
    "aten::is_cpu": lambda _: True,
    "prim::is_cpu": lambda _: True,
    "prim::requires_grad": _false,
    **dict.fromkeys(
        (
            "prim::is_cuda prim::is_mkldnn prim::is_sparse prim::is_quantized prim::is_mps "
            "prim::is_vulkan prim::is_meta prim::is_xpu prim::is_nested prim::is_sparse_csr "
            "prim::is_leaf aten::is_conj aten::is_neg aten::is_inference"
        ).split(),
        _false,
    ),
}


def _set(container: Any, key: Any, value: Any) -> None:
    container[key] = value


def _delete(container: Any, key: Any) -> None:
    del container[key]


def _slice(items: Any, start: Any = None, end: Any = None, step: Any = 1) -> Any:
    return items[slice(start, end, step)]


def _then(method: str) -> Callable[..., Any]:
    """Call a method and return the container, as ``append`` does in TorchScript."""

    def call(container: Any, *args: Any) -> Any:
        getattr(container, method)(*args)
        return container

    return call


def _compare(op: Callable[..., Any]) -> Callable[..., Any]:
    def call(a: Any, b: Any) -> Any:
        if contains((a, b), (Value, Number, torch.Tensor)):
            raise DataDependent("lists of tensors are compared by content")
        return op(a, b)

    return call


def _sort(items: Any, reverse: bool = False) -> None:
    items.sort(reverse=reverse)


CONTAINERS: dict[str, Callable[..., Any]] = {
    "aten::len": len,
    "aten::__getitem__": operator.getitem,
    "aten::_set_item": _set,
    "aten::slice": _slice,
    "aten::add": operator.add,
    "aten::mul": operator.mul,
    "aten::add_": _then("extend"),
    "aten::append": _then("append"),
    "aten::extend": _then("extend"),
    "aten::insert": _then("insert"),
    "aten::clear": _then("clear"),
    "aten::reverse": _then("reverse"),
    "aten::update": _then("update"),
    "aten::sort": _sort,
    "aten::pop": lambda items, *args: items.pop(*args),
    "aten::popitem": lambda items: items.popitem(),
    "aten::Delete": _delete,
    "aten::copy": lambda items: items.copy(),
    "aten::list": list,
    "aten::dict": dict,
    "aten::keys": lambda items: list(items.keys()),
    "aten::values": lambda items: list(items.values()),
    "aten::items": lambda items: list(items.items()),
    "aten::get": lambda items, *args: items.get(*args),
    "aten::setdefault": lambda items, *args: items.setdefault(*args),
    "aten::__contains__": _compare(lambda items, item: item in items),
    "aten::eq": _compare(operator.eq),
    "aten::ne": _compare(operator.ne),
    "aten::index": _compare(list.index),
    "aten::count": _compare(operator.countOf),
    "prim::min": min,
    "prim::max": max,
}
CHANGES = frozenset(
    f"aten::{name}"
    for name in (
        "_set_item add_ append extend insert clear reverse update sort pop popitem Delete "
        "setdefault"
    ).split()
)


def _true_division(a: Any, b: Any) -> Any:
    raise DataDependent(f"a float is computed from the symbolic size {a} / {b}")


def _trunc_or_floor(a: Any, b: Any, *, rounding_mode: str | None = None) -> Any:
    return a // b if rounding_mode in ("floor", "trunc") else _true_division(a, b)


def _scaled(op: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    return lambda a, b, alpha=1: op(a, b * alpha)


def _minimum(a: Int, b: Int) -> Int:
    return minimum(a, b)


def _maximum(a: Int, b: Int) -> Int:
    return maximum(a, b)


ARITHMETIC: dict[str, Callable[..., Any]] = {
    "aten::add": _scaled(operator.add),
    "aten::sub": _scaled(operator.sub),
    "aten::rsub": lambda a, b, alpha=1: b - a * alpha,
    "aten::mul": operator.mul,
    "aten::neg": operator.neg,
    "aten::floordiv": operator.floordiv,
    "aten::floor_divide": operator.floordiv,
    "aten::remainder": operator.mod,
    "aten::div": _trunc_or_floor,
    "aten::eq": operator.eq,
    "aten::ne": operator.ne,
    "aten::lt": operator.lt,
    "aten::le": operator.le,
    "aten::gt": operator.gt,
    "aten::ge": operator.ge,
    "prim::min": _minimum,
    "prim::max": _maximum,
    "aten::Int": lambda a: a,
    "aten::IntImplicit": lambda a: a,
    "aten::ScalarImplicit": lambda a: a,
    "aten::item": lambda a: a,
    "aten::Bool": bool,
    "aten::__is__": operator.is_,
    "aten::__isnot__": operator.is_not,
    "prim::NumToTensor": Number,
    "prim::unchecked_cast": lambda a: a,
}
# Kinds whose result on a Number is a 0-d tensor again, not a size.
STAYS_TENSOR = frozenset(
    f"aten::{name}" for name in "add sub rsub mul neg floor_divide remainder div".split()
)
IDENTITIES = frozenset(f"aten::{name}" for name in "to detach clone contiguous alias".split())


def arithmetic(kind: str, args: list[Any]) -> Any:
    """Do ``kind`` on symbolic sizes, inside 0-d tensors or not; KeyError if it is no arithmetic."""
    function = ARITHMETIC[kind]
    numbers = any(isinstance(a, Number) for a in args)
    plain = [_plain(a) for a in args]
    if any(not isinstance(a, (int, Expr, str, type(None))) for a in plain):
        raise KeyError(kind)
    if kind == "aten::div" and len(plain) == 3:
        result = _trunc_or_floor(plain[0], plain[1], rounding_mode=plain[2])
    else:
        result = function(*plain)
    if not (numbers and kind in STAYS_TENSOR):
        return result
    return Number(result) if isinstance(result, Expr) else torch.tensor(result)


def _plain(value: Any) -> Any:
    if isinstance(value, Number):
        return value.value
    if isinstance(value, torch.Tensor) and value.ndim == 0 and not value.is_floating_point():
        return int(value)
    return value


STRUCTURE: dict[str, Callable[..., Any]] = {
    "prim::ListConstruct": lambda *items: list(items),
    "prim::TupleConstruct": lambda *items: tuple(items),
    "prim::DictConstruct": lambda *items: dict(zip(items[::2], items[1::2], strict=True)),
    "prim::unchecked_cast": lambda a: a,
    "prim::Uninitialized": lambda: None,
    "prim::TupleIndex": operator.getitem,
    "prim::NumToTensor": torch.tensor,
    "aten::__range_length": lambda low, high, step: len(range(low, high, step)),
    "aten::__derive_index": lambda i, start, step: start + i * step,
    "aten::__not__": operator.not_,
    "aten::__is__": operator.is_,
    "aten::__isnot__": operator.is_not,
    "aten::warn": lambda *_: None,
    "aten::format": lambda text, *args: text.format(*args),
    "prim::min": min,
    "prim::max": max,
    "prim::data": lambda a: a,
}
