"""The arguments and results of a TorchScript call, flattened and put together again."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torch_aio.capture.ts_values import Handover, contains
from torch_aio.ir.symbols import Expr, evaluate

TENSORS = (torch.Tensor, torch.nn.Parameter)
PLAIN = (int, float, bool, str, type(None), torch.device)


@dataclass(frozen=True)
class Leaf:
    """The i-th tensor of a call's arguments, or the i-th of its flat results."""

    index: int


@dataclass(frozen=True)
class Whole:
    """The i-th int of a call's arguments."""

    index: int


def check(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, if it is a dense CPU tensor of PyTorch's own type; Handover otherwise."""
    if type(tensor) not in TENSORS or not tensor.is_cpu or tensor.layout is not torch.strided:
        raise Handover(f"an argument is a {type(tensor).__name__} on {tensor.device}")
    if tensor.is_quantized or tensor.is_complex() or tensor.is_neg():
        raise Handover(f"an argument is quantised, complex or a negated view ({tensor.dtype})")
    return tensor


def key_of(value: Any, tensors: list[torch.Tensor]) -> Any:
    """A hashable description of an argument; its tensors are appended to ``tensors``."""
    if isinstance(value, torch.Tensor):
        tensors.append(check(value))
        return value.dtype, value.shape, value.stride()
    if isinstance(value, (list, tuple)):
        return type(value), tuple(key_of(v, tensors) for v in value)
    if isinstance(value, dict):
        return dict, tuple((k, key_of(v, tensors)) for k, v in value.items())
    if isinstance(value, PLAIN):
        return type(value), value
    raise Handover(f"an argument is a {type(value).__name__}")


def template_of(value: Any, tensors: list[torch.Tensor], ints: list[int]) -> Any:
    """The argument with places for its tensors (in the order of ``key_of``) and ints."""
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return Leaf(len(tensors) - 1)
    if type(value) is int:
        ints.append(value)
        return Whole(len(ints) - 1)
    if isinstance(value, (list, tuple)):
        return type(value)(template_of(v, tensors, ints) for v in value)
    if isinstance(value, dict):
        return {k: template_of(v, tensors, ints) for k, v in value.items()}
    return value


def frozen(template: Any) -> Any:
    """A template as a hashable pattern."""
    if isinstance(template, (list, tuple)):
        return type(template), tuple(frozen(t) for t in template)
    if isinstance(template, dict):
        return dict, tuple((k, frozen(t)) for k, t in template.items())
    return template if isinstance(template, (Leaf, Whole)) else (type(template), template)


def fill(template: Any, leaves: Sequence[Any], ints: Sequence[Any] = ()) -> Any:
    """``template`` with tensors and ints in their places."""
    if isinstance(template, Leaf):
        return leaves[template.index]
    if isinstance(template, Whole):
        return ints[template.index]
    if isinstance(template, (list, tuple)):
        return type(template)(fill(t, leaves, ints) for t in template)
    if isinstance(template, dict):
        return {k: fill(t, leaves, ints) for k, t in template.items()}
    return template


def filler(template: Any) -> Callable[[Sequence[Any], Mapping[str, int]], Any]:
    """From flat results, and the call's sizes by symbol, to a result like ``template``."""
    if isinstance(template, Leaf):
        first = operator.itemgetter(template.index)
        return lambda leaves, _: first(leaves)
    if contains(template, Expr):
        return lambda leaves, env: _evaluated(fill(template, leaves), env)
    return lambda leaves, _: fill(template, leaves)


def _evaluated(value: Any, env: Mapping[str, int]) -> Any:
    if isinstance(value, Expr):
        return evaluate(value, env)
    if isinstance(value, (list, tuple)):
        return type(value)(_evaluated(v, env) for v in value)
    if isinstance(value, dict):
        return {k: _evaluated(v, env) for k, v in value.items()}
    return value


def converter(kind: Any) -> Callable[[Any], Any]:
    """How TorchScript converts a Python argument to a type of its own; Handover if we cannot."""
    name = kind.kind()
    if name == "OptionalType":
        inner = converter(kind.getElementType())
        return lambda value: None if value is None else inner(value)
    if name == "ListType":
        item = converter(kind.getElementType())
        return lambda value: [item(v) for v in _of(value, (list, tuple))]
    if name == "TupleType":
        items = [converter(k) for k in kind.elements()]
        return lambda value: tuple(f(v) for f, v in zip(items, _of(value, (tuple,)), strict=True))
    if name == "DictType":
        item = converter(kind.getValueType())
        return lambda value: {k: item(v) for k, v in _of(value, (dict,)).items()}
    accepted = _SCALARS.get(name)
    return lambda value: _scalar(value, name, accepted)


_SCALARS: dict[str, tuple[type, ...]] = {
    "TensorType": (torch.Tensor,),
    "IntType": (int,),
    "FloatType": (float, int),
    "BoolType": (bool,),
    "StringType": (str,),
    "NoneType": (type(None),),
    "NumberType": (int, float),
    "DeviceObjType": (torch.device,),
}


def _of(value: Any, kinds: tuple[type, ...]) -> Any:
    if type(value) not in kinds:
        raise Handover(f"an argument is a {type(value).__name__}")
    return value


def _scalar(value: Any, name: str, accepted: tuple[type, ...] | None) -> Any:
    number: Any = value
    if accepted is None or not isinstance(value, accepted):
        raise Handover(f"an argument of type {name} is a {type(value).__name__}")
    if isinstance(value, bool) and name in ("IntType", "FloatType", "NumberType"):
        raise Handover("a bool is given for a number")
    return float(number) if name == "FloatType" else value
