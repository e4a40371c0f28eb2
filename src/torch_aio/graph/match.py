"""What the fusions look for: numbers, products taken apart, reductions over the last dimensions."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from torch.fx import Node

from torch_aio.graph.rewrite import Value, aten, bind, calls, dim, spec, tensor


def number(value: Value) -> float | None:
    """The number that ``value`` is: a Python number, ``full([], number)``, a literal; else None."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if calls(value, aten.full.default) and all(size == 1 for size in spec(value).shape):
        return number(value.args[1])
    if calls(value, aten._to_copy.default, aten.view.default, aten.expand.default):
        return number(value.args[0])
    return _literal(value)


def _literal(value: Value) -> float | None:
    """The number in a tensor that tracing made of ``torch.tensor(0.5)``; no weight is meant."""
    if not isinstance(value, Node) or value.op != "get_attr" or spec(value).ndim:
        return None
    name = value.meta.get("name", "")
    if name and not name.startswith(("_tensor_constant", "lifted_tensor")):
        return None
    held = getattr(value.graph.owning_module, str(value.target))
    return float(held.item()) if not held.is_complex() else None


def is_near(value: float | None, wanted: float) -> bool:
    """Whether a model's constant means this number (written with seven digits or more)."""
    return value is not None and math.isclose(value, wanted, rel_tol=1e-6)


@dataclass
class Factors:
    """A product taken apart: its tensors, how often each, and the product of its numbers."""

    tensors: Counter[Node] = field(default_factory=Counter)
    scale: float = 1.0

    @property
    def nodes(self) -> list[Node]:
        """The tensors, repeated as they occur."""
        return list(self.tensors.elements())


def factors(node: Node) -> Factors:
    """The factors of a tree of mul and div by numbers whose inner nodes nobody else reads."""
    found = Factors()
    _collect(node, found, inner=False)
    return found


def _collect(value: Value, found: Factors, *, inner: bool) -> None:
    plain = number(value)
    if plain is not None:
        found.scale *= plain
    elif not isinstance(value, Node) or (inner and len(value.users) > 1):
        found.tensors[value] += 1
    elif calls(value, aten.mul.Tensor):
        for operand in value.args:
            _collect(operand, found, inner=True)
    elif calls(value, aten.div.Tensor) and number(value.args[1]):
        found.scale /= number(value.args[1]) or 1.0
        _collect(value.args[0], found, inner=True)
    else:
        found.tensors[value] += 1


def plus(value: Value) -> tuple[Node, float] | None:
    """``(x, c)`` where ``value`` is ``x + c`` or ``c + x`` or ``x - (-c)`` for a number c."""
    if not calls(value, aten.add.Tensor):
        return None
    for x, c in (value.args, value.args[::-1]):
        plain = number(c)
        if plain is not None and isinstance(x, Node):
            return x, plain
    return None


def other(node: Node, one: Node) -> Value:
    """The operand of a binary call that is not ``one``."""
    return node.args[1] if node.args[0] is one else node.args[0]


def mean_over_last(value: Value) -> tuple[Node, int] | None:
    """``(x, n)`` where ``value`` is the mean of x over its last n dimensions, kept as ones."""
    if not calls(value, aten.mean.dim):
        return None
    bound = bind(value)
    return _over_last(value, bound) if bound["dtype"] is None else None


def variance_over_last(value: Value) -> tuple[Node, int] | None:
    """``(x, n)`` where ``value`` is the biased variance of x over its last n dimensions."""
    if not calls(value, aten.var.correction, aten.var.dim):
        return None
    bound = bind(value)
    biased = bound.get("correction") == 0 if "correction" in bound else not bound["unbiased"]
    return _over_last(value, bound) if biased else None


def _over_last(value: Node, bound: dict[str, Value]) -> tuple[Node, int] | None:
    x, ndim = bound["self"], spec(bound["self"]).ndim
    dims = sorted(dim(d, ndim) for d in bound["dim"] or ())
    count = len(dims)
    if not bound["keepdim"] or not count or dims != list(range(ndim - count, ndim)):
        return None
    return x, count


def is_swap_of_last(node: Value) -> bool:
    """Whether ``node`` exchanges the last two dimensions of its input."""
    found = tensor(node)
    if found is None or found.ndim < 2:
        return False
    last = found.ndim - 1
    if calls(node, aten.transpose.int):
        return {dim(d, last + 1) for d in node.args[1:3]} == {last, last - 1}
    order = [*range(last - 1), last, last - 1]
    return calls(node, aten.permute.default) and list(node.args[1]) == order
