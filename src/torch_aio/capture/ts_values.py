"""What a TorchScript value is while its graph is walked, and how operators are emitted.

A value is a plain Python object wherever it is known; a ``Value`` stands for a tensor that only
the call knows, an ``Expr`` for a size that only the call knows, a ``Number`` for such a size
inside a 0-d tensor (traced graphs compute with sizes in tensors).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from torch_aio.errors import CaptureError
from torch_aio.ir.shapes import infer, spec_of
from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Atom, Expr, Guards, Int


class Handover(CaptureError):
    """This call belongs to the original method (it raises, or uses what we leave to it)."""


class DataDependent(CaptureError):
    """The values of tensors decide what is computed: the graph must be cut into segments."""


@dataclass(eq=False)
class View:
    """``child = target(parent, *args)`` shares the parent's memory."""

    parent: Value
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(eq=False)
class Value:
    """A tensor of the graph. ``constant`` is its content where it is a weight.

    ``view`` tells of whom it is a view; ``version`` counts the updates of its memory that
    ``node`` includes (see ts_inplace).
    """

    node: fx.Node
    spec: TensorSpec
    constant: torch.Tensor | None = None
    view: View | None = None
    version: int = 0


@dataclass(frozen=True)
class Number:
    """A 0-d tensor whose content is a symbolic size."""

    value: Expr


@dataclass(frozen=True)
class Place:
    """Where a node of the TorchScript graph comes from."""

    source: str = ""
    path: str = ""


class Emitter:
    """Builds one fx graph; every emitted node carries spec, source and path."""

    def __init__(self) -> None:
        self.graph = fx.Graph()
        self.root = torch.nn.Module()
        self.place = Place()
        self.symbols: dict[str, tuple[fx.Node, int]] = {}
        self._constants: dict[int, Value] = {}
        self._kept: list[torch.Tensor] = []
        self._sizes: dict[Expr, fx.Node] = {}

    def placeholder(self, name: str, spec: TensorSpec) -> Value:
        """A tensor input of the call."""
        node = self.graph.placeholder(name.replace(".", "_"))
        return Value(self._tagged(node, spec), spec)

    def constant(self, tensor: torch.Tensor, name: str = "") -> Value:
        """A tensor that the graph owns; one ``get_attr`` for each distinct object."""
        known = self._constants.get(id(tensor))
        if known is not None:
            return known
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or not tensor.is_cpu:
            raise Handover("a constant is not a plain CPU tensor")
        if tensor.layout is not torch.strided or tensor.is_quantized:
            raise Handover(f"a constant has layout {tensor.layout}, dtype {tensor.dtype}")
        attribute = f"w{len(self._constants)}"
        self.root.register_buffer(attribute, tensor, persistent=False)
        spec = spec_of(tensor)
        node = self._tagged(self.graph.get_attr(attribute), spec)
        node.meta["name"] = name
        node.meta["path"] = name.rpartition(".")[0]
        self._kept.append(tensor)
        self._constants[id(tensor)] = value = Value(node, spec, constant=tensor)
        return value

    def call(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Emit ``target`` on values; returns a Value, a list of Values, or a size."""
        args, kwargs = self.lift(args), self.lift(kwargs)
        try:
            spec = infer(target, as_specs(args), as_specs(kwargs))
        except NotImplementedError as error:
            raise DataDependent(f"{target}: {error}") from error
        node = self.graph.call_function(target, self.nodes(args), self.nodes(kwargs))
        return self._result(self._tagged(node, spec), spec)

    def _result(self, node: fx.Node, spec: Any) -> Any:
        if isinstance(spec, TensorSpec):
            return Value(node, spec)
        if isinstance(spec, tuple):
            return [
                self._result(
                    self._tagged(self.graph.call_function(operator.getitem, (node, i)), item), item
                )
                for i, item in enumerate(spec)
            ]
        return spec

    def lift(self, value: Any) -> Any:
        """Real tensors become constants, numbers in tensors become ``scalar_tensor`` nodes."""
        if isinstance(value, torch.Tensor):
            return self.constant(value)
        if isinstance(value, Number):
            return self.call(torch.ops.aten.scalar_tensor.default, value.value, dtype=torch.int64)
        if isinstance(value, (list, tuple)):
            return type(value)(self.lift(v) for v in value)
        if isinstance(value, dict):
            return {k: self.lift(v) for k, v in value.items()}
        return value

    def nodes(self, value: Any) -> Any:
        """Values as fx arguments."""
        if isinstance(value, Value):
            return value.node
        if isinstance(value, Expr):
            return self.size(value)
        if isinstance(value, (list, tuple)):
            return type(value)(self.nodes(v) for v in value)
        if isinstance(value, dict):
            return {k: self.nodes(v) for k, v in value.items()}
        return value

    def size(self, value: Int) -> fx.Node | int:
        """The node that computes a size at the call."""
        if isinstance(value, int):
            return value
        if value not in self._sizes_seen():
            self._sizes[value] = self._sum(value)
        return self._sizes[value]

    def _sizes_seen(self) -> dict[Expr, fx.Node]:
        return self._sizes

    def _sum(self, value: Expr) -> fx.Node:
        total: fx.Node | int = 0
        partial: Int = 0
        for monomial, coefficient in value.terms:
            term: fx.Node | int = coefficient
            amount: Int = coefficient
            for atom in monomial:
                amount = amount * Expr((((atom,), 1),))
                term = self._arithmetic(operator.mul, term, self._atom(atom), amount, neutral=1)
            partial = partial + amount
            total = self._arithmetic(operator.add, total, term, partial, neutral=0)
        assert isinstance(total, fx.Node)
        return total

    def _arithmetic(
        self, op: Any, a: fx.Node | int, b: fx.Node | int, spec: Int, *, neutral: int
    ) -> fx.Node | int:
        if isinstance(a, int) and a == neutral:
            return b
        if isinstance(a, int) and isinstance(b, int):
            return int(op(a, b))
        return self._tagged(self.graph.call_function(op, (a, b)), spec)

    def _atom(self, atom: Atom) -> fx.Node:
        whole = Expr((((atom,), 1),))
        if whole in self._sizes:
            return self._sizes[whole]
        if atom.op == "symbol":
            if atom.args[0] not in self.symbols:
                raise CaptureError("an operator takes an int that differs between calls")
            owner, dim = self.symbols[str(atom.args[0])]
            target: Any = torch.ops.aten.sym_size.int
            args: tuple[Any, ...] = (owner, dim)
        else:
            target = _OPAQUE[atom.op]
            args = tuple(self.size(a) for a in atom.args if not isinstance(a, str))
        node = self._tagged(self.graph.call_function(target, args), whole)
        self._sizes[whole] = node
        return node

    def _tagged(self, node: fx.Node, spec: Any) -> fx.Node:
        node.meta.update(spec=spec, source=self.place.source, path=self.place.path)
        return node


_OPAQUE: dict[str, Callable[..., Any]] = {
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "max": torch.sym_max,
    "min": torch.sym_min,
}


def as_specs(value: Any) -> Any:
    """Values as shape inference wants them."""
    if isinstance(value, Value):
        return value.spec
    if isinstance(value, (list, tuple)):
        return type(value)(as_specs(v) for v in value)
    if isinstance(value, dict):
        return {k: as_specs(v) for k, v in value.items()}
    return value


def contains(value: Any, kinds: type | tuple[type, ...]) -> bool:
    """Whether a value or anything inside it is of these types."""
    if isinstance(value, (list, tuple)):
        return any(contains(v, kinds) for v in value)
    if isinstance(value, dict):
        return any(contains(v, kinds) for v in value.values())
    return isinstance(value, kinds)


__all__ = [
    "DataDependent",
    "Emitter",
    "Guards",
    "Handover",
    "Number",
    "Place",
    "Value",
    "View",
    "as_specs",
    "contains",
]
