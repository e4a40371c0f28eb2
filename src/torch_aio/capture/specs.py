"""From what a trace knows of a value (FakeTensor, SymInt) to what the graph keeps (``Spec``)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch

from torch_aio.errors import CaptureError
from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Int, maximum, minimum, product, symbol

_NEUTRAL: dict[type, type] = {torch.SymFloat: float, torch.SymBool: bool}


def spec_of(value: Any) -> Any:
    """The ``Spec`` of a traced value.

    Tensors give a TensorSpec, ints and SymInts an Int, lists and tuples a tuple of specs; None and
    Python scalars are their own spec. A symbolic float or bool gives its Python *type*: a number
    that only the run knows. Raises CaptureError for sizes that sizes cannot express.
    """
    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided:
            raise CaptureError(f"a tensor of layout {value.layout} cannot be described")
        shape = tuple(size_of(n) for n in value.shape)
        return TensorSpec(shape, value.dtype, tuple(size_of(n) for n in value.stride()))
    if isinstance(value, torch.SymInt):
        return size_of(value)
    if isinstance(value, (list, tuple)):
        return tuple(spec_of(item) for item in value)
    return _NEUTRAL.get(type(value), value)


def size_of(size: int | torch.SymInt) -> Int:
    """An int as itself, a SymInt as an expression in the trace's symbols."""
    if isinstance(size, torch.SymInt):
        return expression(size.node.expr)
    return int(size)


@functools.lru_cache(maxsize=4096)
def expression(expr: Any) -> Int:
    """A sympy expression over sizes as an Int."""
    if expr.is_Integer:
        return int(expr)
    if expr.is_Symbol:
        return symbol(str(expr))
    convert = _CONVERT.get(type(expr).__name__)
    if convert is None:
        raise CaptureError(f"the size {expr} has no counterpart among torch_aio's sizes")
    return convert(*(expression(arg) for arg in expr.args))


def _power(base: Int, exponent: Int) -> Int:
    if not isinstance(exponent, int) or exponent < 0:
        raise CaptureError(f"a size raised to the power {exponent} is not a size")
    return product([base] * exponent)


def _modular(value: Int, divisor: Int, modulus: Int) -> Int:
    return value // divisor % modulus


_CONVERT: dict[str, Callable[..., Int]] = {
    "Add": lambda *terms: functools.reduce(lambda a, b: a + b, terms),
    "Mul": lambda *factors: math.prod(factors),
    "Pow": _power,
    "PowByNatural": _power,
    "FloorDiv": lambda a, b: a // b,
    "CleanDiv": lambda a, b: a // b,
    "CeilDiv": lambda a, b: (a + b - 1) // b,
    "Mod": lambda a, b: a % b,
    "PythonMod": lambda a, b: a % b,
    "ModularIndexing": _modular,
    "Max": lambda *args: functools.reduce(maximum, args),
    "Min": lambda *args: functools.reduce(minimum, args),
    "Identity": lambda a: a,
}
