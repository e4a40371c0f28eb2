"""TorchScript operators as overloads of torch.ops."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import torch

from torch_aio.capture.ts_codes import dtype_of, layout_of, memory_format_of
from torch_aio.capture.ts_values import DataDependent

ALLOWED = frozenset({"aten", "prim", "aio"})
FROM_DATA = frozenset(
    "aten::" + name
    for name in "Bool Int Float item IntImplicit FloatImplicit ScalarImplicit".split()
)
TENSOR_WRITE = re.compile(r"Tensor\([a-z]+!")  # lists are written as "t[](a!)"
CONVERT = {"ScalarType": dtype_of, "Layout": layout_of, "MemoryFormat": memory_format_of}


@lru_cache(maxsize=4096)
def operator_of(schema: str) -> tuple[Any, tuple[tuple[str, bool, Any], ...]]:
    """The overload of a schema, and (name, keyword only, conversion) of each argument."""
    name = schema.partition("(")[0]
    namespace, _, rest = name.partition("::")
    base, _, overload = rest.partition(".")
    if not rest or namespace not in ALLOWED:
        raise DataDependent(f"{name} is left to TorchScript")
    try:
        op = getattr(getattr(getattr(torch.ops, namespace), base), overload or "default")
    except AttributeError:
        raise DataDependent(f"{name} is not among torch.ops") from None
    signature = tuple((a.name, a.kwarg_only, _conversion(a)) for a in op._schema.arguments)
    return op, signature


def _conversion(argument: Any) -> Any:
    kind = str(argument.real_type).removeprefix("Optional[").rstrip("]")
    return CONVERT.get(kind)


def has_updates(block: Any) -> bool:
    """Whether an operator left in a graph writes to a tensor."""
    return any(
        TENSOR_WRITE.search(node.schema().partition("->")[0])
        or any(has_updates(inner) for inner in node.blocks())
        for node in block.nodes()
    )
