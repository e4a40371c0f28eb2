"""Vector mathematics: every operation a chain can contain."""

from __future__ import annotations

from collections.abc import Callable

from torch_aio.codegen.builder import Builder
from torch_aio.codegen.types import Value

COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor", "not"})


def _binary(instruction: str) -> Callable[[Builder, Value, Value], Value]:
    def emit(k: Builder, a: Value, b: Value) -> Value:
        return k.op(("f" + instruction) if a.type.is_float else instruction, a, b)

    return emit


OPS: dict[str, Callable[..., Value]] = {
    "add": _binary("add"),
    "sub": _binary("sub"),
    "mul": _binary("mul"),
    "relu": lambda k, x: k.select(k.fcmp("olt", x, k.const(x.type, 0)), k.const(x.type, 0), x),
}
