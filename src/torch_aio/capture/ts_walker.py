"""From a TorchScript graph and the specs of one call to a straight-line graph.

The walk interprets the TorchScript graph: what is known is computed (sizes, lists, branches,
loops), what depends on the call's tensors is emitted. Nothing of the user's is executed except
operators of aten on tensors that the walk itself created from numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from torch_aio.capture import ts_inplace
from torch_aio.capture.ts_attention import DECOMPOSED
from torch_aio.capture.ts_codes import dtype_of
from torch_aio.capture.ts_operators import ALLOWED, FROM_DATA, has_updates, operator_of
from torch_aio.capture.ts_places import path_of, source_of
from torch_aio.capture.ts_python import (
    ARITHMETIC,
    CHANGES,
    CONTAINERS,
    IDENTITIES,
    QUERIES,
    STRUCTURE,
    arithmetic,
)
from torch_aio.capture.ts_values import (
    DataDependent,
    Emitter,
    Handover,
    Number,
    Place,
    Value,
    contains,
)
from torch_aio.errors import CaptureError
from torch_aio.ir.symbols import Expr

LIMIT = 100_000  # nodes walked: a loop over a long sequence is not worth unrolling


@dataclass(frozen=True)
class Object:
    """A module of the graph, by its path from ``self``."""

    path: str = ""


@dataclass
class Walker:
    """One walk. ``attributes`` hold what GetAttr reads; ``writes`` collects what SetAttr wrote."""

    emitter: Emitter
    attributes: dict[str, Any]
    foreign: set[int] = field(default_factory=set)
    writes: dict[str, Any] = field(default_factory=dict)
    updated: list[Value] = field(default_factory=list)
    tracks_views: bool = False
    steps: int = 0

    def run(self, graph: torch._C.Graph, inputs: Iterable[Any]) -> list[Any]:
        """Walk ``graph`` on these inputs; its outputs."""
        self.tracks_views = has_updates(graph)
        env = {v.debugName(): x for v, x in zip(graph.inputs(), inputs, strict=True)}
        with torch.no_grad():
            return self._block(graph, env)

    def _block(self, block: Any, env: dict[str, Any]) -> list[Any]:
        for node in block.nodes():
            self.steps += 1
            if self.steps > LIMIT:
                raise Handover(f"more than {LIMIT} operations: loops are not unrolled that far")
            kind = node.kind()
            args = [env[v.debugName()] for v in node.inputs()]
            try:
                results = self._node(node, kind, args, env)
            except CaptureError:
                raise
            except Exception as error:
                where = source_of(node)
                raise CaptureError(f"{kind} ({where}): {type(error).__name__}: {error}") from error
            for output, value in zip(node.outputs(), results, strict=True):
                env[output.debugName()] = value
        return [env[v.debugName()] for v in block.outputs()]

    def _node(self, node: Any, kind: str, args: list[Any], env: dict[str, Any]) -> list[Any]:
        if kind == "prim::Constant":
            return [self._constant(node)]
        special = _SPECIAL.get(kind)
        if special is not None:
            return special(self, node, args, env)  # type: ignore[no-any-return]
        result = self._call(node, kind, args)
        count = node.outputsSize()
        return [] if count == 0 else [result] if count == 1 else list(result)

    def _constant(self, node: Any) -> Any:
        value = node.output().toIValue() if node.output().type().kind() != "FunctionType" else None
        if isinstance(value, torch.Tensor) and value.ndim:
            return self.emitter.constant(value, _constant_name(node))
        if isinstance(value, (list, dict)):
            self.foreign.add(id(value))
            self._kept = [*getattr(self, "_kept", ()), value]
        return value

    def _if(self, node: Any, args: list[Any], env: dict[str, Any]) -> list[Any]:
        condition = args[0]
        if isinstance(condition, (Value, torch.Tensor)):
            raise DataDependent(f"a branch on a tensor ({source_of(node)})")
        blocks = list(node.blocks())
        return self._block(blocks[0 if condition else 1], env)

    def _loop(self, node: Any, args: list[Any], env: dict[str, Any]) -> list[Any]:
        limit, going, carried = args[0], args[1], args[2:]
        body = next(iter(node.blocks()))
        names = [v.debugName() for v in body.inputs()]
        if isinstance(limit, Expr):
            raise DataDependent(f"a loop over a symbolic length ({source_of(node)})")
        count = 0
        while not isinstance(going, Value) and going and count < limit:
            env.update(zip(names, [count, *carried], strict=True))
            going, *carried = self._block(body, env)
            count += 1
        if isinstance(going, Value):
            raise DataDependent(f"a loop on a tensor ({source_of(node)})")
        return carried

    def _get(self, node: Any, args: list[Any], _: dict[str, Any]) -> list[Any]:
        path = _joined(args[0], node.s("name"))
        return [self.attributes[path] if path in self.attributes else Object(path)]

    def _set(self, node: Any, args: list[Any], _: dict[str, Any]) -> list[Any]:
        path = _joined(args[0], node.s("name"))
        self.attributes[path] = self.writes[path] = args[1]
        return []

    def _unpack(self, _: Any, args: list[Any], __: dict[str, Any]) -> list[Any]:
        return list(args[0])

    def _raise(self, node: Any, args: list[Any], _: dict[str, Any]) -> list[Any]:
        raise Handover(f"the model raises {args[0]!r} ({source_of(node)})")

    def _call(self, node: Any, kind: str, args: list[Any]) -> Any:  # noqa: C901 - a list of cases
        first = args[0] if args else None
        if isinstance(first, Value) and kind in QUERIES:
            return QUERIES[kind](*args)
        if isinstance(first, (list, dict, str, tuple)) and kind in CONTAINERS:
            return self._container(kind, args)
        if contains(args, (Expr, Number)):
            if isinstance(first, Number) and kind in IDENTITIES:
                return first
            if kind in ARITHMETIC:
                try:
                    return arithmetic(kind, args)
                except KeyError:
                    pass
        if kind in STRUCTURE:
            return STRUCTURE[kind](*args)
        if kind in FROM_DATA:
            return _known(node, kind, first)
        if kind.partition("::")[0] not in ALLOWED:
            raise DataDependent(f"{kind} is not an operator of ours ({source_of(node)})")
        if kind in DECOMPOSED:
            self._locate(node)
            return DECOMPOSED[kind](self.emitter, *self.emitter.lift(args))
        return self._operator(node, args)

    def _container(self, kind: str, args: list[Any]) -> Any:
        if kind in CHANGES and id(args[0]) in self.foreign:
            raise Handover(f"{kind} changes a list or dict that outlives the call")
        return CONTAINERS[kind](*args)

    def _operator(self, node: Any, args: list[Any]) -> Any:
        op, signature = operator_of(node.schema())
        positional, named = [], {}
        for value, (name, keyword_only, convert) in zip(args, signature, strict=True):
            converted = convert(value) if convert is not None else value
            if keyword_only:
                named[name] = converted
            else:
                positional.append(converted)
        self._locate(node)
        if op._overloadname.startswith("prim_"):
            return self._cast(op, positional)
        if ts_inplace.mutates(op._schema):
            return self._update(op, positional, named)
        known = not contains((positional, list(named.values())), (Value, Expr, Number))
        if known and not self._must_emit(op):
            return op(*positional, **named)
        return self._emit(op, positional, named)

    def _cast(self, op: Any, args: list[Any]) -> Any:
        """``to.prim_*`` take optional arguments as TorchScript has them."""
        named = dict(zip((a.name for a in op._schema.arguments), args, strict=True))
        x, dtype = args[0], dtype_of(named.get("dtype"))
        if named.get("device") not in (None, torch.device("cpu")):
            raise Handover(f"a tensor is moved to {named['device']}")
        if not isinstance(x, Value):
            x = self.emitter.lift(x)
        if named.get("copy"):
            return self._emit(torch.ops.aten._to_copy.default, [x], {"dtype": dtype})
        if dtype in (None, x.spec.dtype):
            return x
        return self._emit(torch.ops.aten.to.dtype, [x, dtype], {})

    def _emit(self, op: Any, positional: list[Any], named: dict[str, Any]) -> Any:
        if torch.device("cpu") != (named.get("device") or torch.device("cpu")):
            raise Handover(f"{op} on {named['device']}")
        e = self.emitter
        positional, named = e.lift(positional), e.lift(named)
        if not self.tracks_views:
            return e.call(op, *positional, **named)
        self._refresh([positional, list(named.values())])
        result = e.call(op, *positional, **named)
        if ts_inplace.is_view(op._schema) and isinstance(positional[0], Value):
            rest = tuple(positional[1:])
            return ts_inplace.attach(result, positional[0], op, rest, named)
        return result

    def _update(self, op: Any, positional: list[Any], named: dict[str, Any]) -> Any:
        target = positional[0]
        if not isinstance(target, Value):
            raise Handover(f"{op} updates a constant")
        self._refresh([positional, list(named.values())])
        base = ts_inplace.update(self.emitter, target, op, positional[1:], named)
        if base not in self.updated:
            self.updated.append(base)
        return target

    def _refresh(self, values: Any) -> None:
        if isinstance(values, Value):
            ts_inplace.refresh(self.emitter, values)
        elif isinstance(values, (list, tuple)):
            for value in values:
                self._refresh(value)
        elif isinstance(values, dict):
            self._refresh(list(values.values()))

    def _must_emit(self, op: Any) -> bool:
        """Random numbers are drawn at each call; memory that is updated is made at each call."""
        if torch.Tag.nondeterministic_seeded in op.tags:
            return True
        returns_tensor = any("Tensor" in str(r.type) for r in op._schema.returns)
        return returns_tensor and (self.tracks_views or "empty" in op._schema.name)

    def _locate(self, node: Any) -> None:
        self.emitter.place = Place(source_of(node), path_of(node))


_SPECIAL: dict[str, Any] = {
    "prim::If": Walker._if,
    "prim::Loop": Walker._loop,
    "prim::GetAttr": Walker._get,
    "prim::SetAttr": Walker._set,
    "prim::TupleUnpack": Walker._unpack,
    "prim::ListUnpack": Walker._unpack,
    "prim::RaiseException": Walker._raise,
}


def _known(node: Any, kind: str, value: Any) -> Any:
    """A tensor's content as a number, if it is known while walking."""
    if isinstance(value, Value):
        if value.constant is None or value.constant.numel() != 1:
            raise DataDependent(f"{kind} of a tensor ({source_of(node)})")
        value = value.constant
    number = value.item() if isinstance(value, torch.Tensor) else value
    kinds = {"Bool": bool, "Int": int, "IntImplicit": int, "Float": float, "FloatImplicit": float}
    convert: Any = kinds.get(kind.removeprefix("aten::"))
    if isinstance(number, Expr):
        raise DataDependent(f"{kind} of a symbolic size ({source_of(node)})")
    return number if convert is None else convert(number)


def _joined(owner: Any, name: str) -> str:
    if not isinstance(owner, Object):
        raise DataDependent(f"attribute {name!r} of an object that is no module")
    return f"{owner.path}.{name}" if owner.path else name


def _constant_name(node: Any) -> str:
    name = str(node.output().debugName())
    return "" if name.isdigit() else name.removeprefix("self.")
