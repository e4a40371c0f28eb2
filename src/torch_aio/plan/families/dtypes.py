"""Which dtypes elementwise operators accept."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.fx import Node

from torch_aio.codegen.vmath import ARITHMETIC
from torch_aio.ir.spec import TensorSpec

FLOATS = frozenset({torch.float32, torch.float64, torch.float16, torch.bfloat16})
NUMBERS = FLOATS | {torch.int64, torch.int32, torch.int16, torch.int8}
CHAIN_DTYPES = NUMBERS | {torch.bool}
ON_BOOLS = {"add": "or", "mul": "and", "max": "or", "min": "and"}
"""What arithmetic on truth values is."""


def _spec(node: Node) -> TensorSpec:
    spec: TensorSpec = node.meta["spec"]
    return spec


def _dtype_reason(node: Node, allowed: frozenset[torch.dtype]) -> str | None:
    dtype = _spec(node).dtype
    if dtype in allowed:
        return None
    return f"no elementwise kernel computes in {str(dtype).removeprefix('torch.')}"


def floats(node: Node) -> str | None:
    """Results in a floating dtype."""
    return _dtype_reason(node, FLOATS)


def supported(op: str) -> Callable[[Node], str | None]:
    """Floats that ``op`` is right for: polynomials are fitted for f32 (halves compute in it)."""

    def accept(node: Node) -> str | None:
        if op not in ARITHMETIC and _spec(node).dtype == torch.float64:
            return f"{op} of float64 has no kernel"
        return floats(node)

    return accept


def numbers(node: Node) -> str | None:
    """Results in any dtype but bool, from numbers that fit the code."""
    for argument in (*node.args, *node.kwargs.values()):
        if isinstance(argument, Node) and not isinstance(argument.meta["spec"], TensorSpec):
            return "an operand is a size that changes"
    return _dtype_reason(node, NUMBERS)


def arithmetic(op: str) -> Callable[[Node], str | None]:
    """Numbers, and bools where ``op`` has a meaning for them."""

    def accept(node: Node) -> str | None:
        is_logic = op in ON_BOOLS and _spec(node).dtype == torch.bool
        return None if is_logic else numbers(node)

    return accept


def anything(node: Node) -> str | None:
    """Any dtype of the chains."""
    return _dtype_reason(node, CHAIN_DTYPES)


def division(node: Node) -> str | None:
    """Floats; integers only by a constant, as division by zero would end the process."""
    divisor = node.args[1]
    if _spec(node).dtype not in FLOATS and (isinstance(divisor, Node) or divisor == 0):
        return "integer division by a tensor may meet a zero"
    if node.kwargs.get("rounding_mode") == "floor" and _spec(node).dtype == torch.float64:
        return "floor division of float64 has no kernel"
    return numbers(node)
