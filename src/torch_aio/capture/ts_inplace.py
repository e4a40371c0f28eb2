"""In-place updates done functionally: a changed view rewrites its base, other views follow.

y = x[1]; y += 1         ->  x1 = select_scatter(x, x[1] + 1, 0, 1)
x.add_(1) on an input    ->  x1 = x + 1; ...; copy_(x, x1) at the end
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from torch_aio.capture.ts_values import DataDependent, Emitter, Handover, Value, View
from torch_aio.ir.shapes.layout import view_stride

aten = torch.ops.aten
RESHAPED = frozenset(
    "aten::" + name
    for name in "view reshape _unsafe_view flatten squeeze view_as reshape_as unflatten".split()
)
MAYBE_COPY = frozenset({"aten::reshape", "aten::flatten", "aten::reshape_as"})
SAME_OR_COPY = frozenset({"aten::contiguous", "aten::to", "aten::type_as"})


def mutates(schema: Any) -> bool:
    """Whether an operator writes to one of its arguments."""
    return any(a.alias_info is not None and a.alias_info.is_write for a in schema.arguments)


def is_view(schema: Any) -> bool:
    """Whether an operator's first result may share its first argument's memory."""
    first = schema.arguments[0].alias_info if schema.arguments else None
    return first is not None and not first.is_write


def attach(
    result: Any, parent: Value, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Remember that ``result`` is a view of ``parent``, where it is one; the value to use."""
    name = op._schema.name
    if isinstance(result, list):
        for item in result:
            item.view = View(parent, None, (), {})  # an update of one is refused by _undo
            item.version = parent.version
        return result
    if name in MAYBE_COPY and view_stride(parent.spec, result.spec.shape) is None:
        return result
    if name in SAME_OR_COPY:
        return parent if result.spec == parent.spec and "copy" not in kwargs else result
    result.view = View(parent, op, args, kwargs)
    result.version = parent.version
    return result


def refresh(e: Emitter, value: Value) -> None:
    """Let ``value.node`` include every update of the memory it is a view of."""
    view = value.view
    if view is None:
        return
    refresh(e, view.parent)
    if value.version == view.parent.version:
        return
    if view.target is None:
        raise DataDependent("one of several views is read after an update of their base")
    again = e.call(view.target, view.parent, *view.args, **view.kwargs)
    value.node, value.version = again.node, view.parent.version


def update(e: Emitter, target: Value, op: Any, args: list[Any], kwargs: dict[str, Any]) -> Value:
    """Do the in-place ``op(target, *args)`` functionally; returns the base that changed."""
    new = _functional(e, op, target, args, kwargs)
    if new.spec.dtype != target.spec.dtype:
        new = e.call(aten._to_copy.default, new, dtype=target.spec.dtype)
    if new.spec.shape != target.spec.shape:
        raise DataDependent(f"{op} changes the shape of a tensor in place")
    base = target
    while base.view is not None:
        parent = base.view.parent
        new = _undo(e, base.view, new)
        base = parent
    if base.constant is not None:
        raise Handover("a constant is updated in place")
    base.node, base.spec = new.node, new.spec
    base.version += 1  # its views, the target among them, are read from it again
    return base


def _functional(
    e: Emitter, op: Any, target: Value, args: list[Any], kwargs: dict[str, Any]
) -> Value:
    name = op._schema.name.removeprefix("aten::")
    if name == "copy_":
        return _copied(e, target, e.lift(args[0]))
    if name in ("fill_", "zero_"):
        fill = args[0] if args else 0
        if isinstance(fill, (int, float)):
            filled: Value = e.call(aten.full_like.default, target, fill)
            return filled
        return _copied(e, target, e.lift(fill))
    if not name.endswith("_") or "out" in kwargs:
        raise DataDependent(f"{op} writes to an argument")
    try:
        functional = getattr(getattr(aten, name[:-1]), op._overloadname)
    except AttributeError:
        raise DataDependent(f"{op} has no functional form") from None
    if torch.Tag.nondeterministic_seeded in functional.tags:
        raise Handover(f"{op} draws random numbers")
    result: Value = e.call(functional, target, *args, **kwargs)
    return result


def _copied(e: Emitter, target: Value, source: Value) -> Value:
    if source.spec.shape != target.spec.shape:
        source = e.call(aten.expand.default, source, list(target.spec.shape))
    # A copy, whatever becomes of the source.
    result: Value = e.call(aten._to_copy.default, source, dtype=target.spec.dtype)
    return result


def _undo(e: Emitter, view: View, new: Value) -> Value:
    """The parent with ``new`` in the place its view shows."""
    parent = view.parent
    name = "" if view.target is None else view.target._schema.name
    if name in RESHAPED:
        restored: Value = e.call(aten.reshape.default, new, list(parent.spec.shape))
        return restored
    rule = UNDO.get(name)
    if rule is None or view.kwargs:
        raise DataDependent(f"an update through {view.target or 'one of several views'}")
    undone: Value = rule(e, parent, new, *view.args)
    return undone


def _narrow(e: Emitter, parent: Value, new: Value, dim: int, start: Any, length: Any) -> Any:
    return e.call(aten.slice_scatter.default, parent, new, dim, start, start + length)


def _permute(e: Emitter, parent: Value, new: Value, dims: list[int]) -> Any:
    order = [d % len(dims) for d in dims]
    return e.call(aten.permute.default, new, [order.index(d) for d in range(len(dims))])


UNDO: dict[str, Callable[..., Any]] = {
    "aten::select": lambda e, p, new, dim, i: e.call(aten.select_scatter.default, p, new, dim, i),
    "aten::slice": lambda e, p, new, *args: e.call(aten.slice_scatter.default, p, new, *args),
    "aten::narrow": _narrow,
    "aten::transpose": lambda e, _, new, a, b: e.call(aten.transpose.int, new, a, b),
    "aten::t": lambda e, _, new: e.call(aten.t.default, new),
    "aten::permute": _permute,
    "aten::unsqueeze": lambda e, _, new, dim: e.call(aten.squeeze.dim, new, dim),
    "aten::alias": lambda _, __, new: new,
    "aten::detach": lambda _, __, new: new,
}
