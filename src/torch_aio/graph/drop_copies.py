"""Pass ``drop_copies``: copies that only change strides go where no reader depends on strides."""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from torch_aio.graph import alias
from torch_aio.graph.compare import is_same
from torch_aio.graph.rewrite import aten, callee, calls, refuse, replace_as_is, spec, tensor
from torch_aio.ir import shapes
from torch_aio.ir.shapes import layout
from torch_aio.ir.spec import TensorSpec

_NAME = "drop_copies"


def drop_copies(gm: GraphModule) -> int:
    """linear(view(select(clone(permute(x)), 0, i))) -> linear(view(select(permute(x), 0, i))).

    Kernels read any strides; the copy goes where the innermost elements stay neighbours, each view
    after it is still possible without a copy, and what its readers compute lies as it did.
    """
    count = 0
    for node in list(gm.graph.nodes):
        if not calls(node, aten.clone.default) or not isinstance(node.args[0], Node):
            continue
        changed = _without(node)
        if isinstance(changed, str):
            refuse(node, _NAME, changed)
        elif replace_as_is(node, node.args[0]):
            respell(changed)
            count += 1
    return count


def respell(changed: dict[Node, TensorSpec]) -> None:
    """Give views the specs of ``relaid``; reshape(x, s) -> view(x, s) where no copy is needed."""
    for view, found in changed.items():
        view.meta["spec"] = found
        if calls(view, aten.reshape.default):
            strides = layout.view_stride(spec(view.args[0]), found.shape)  # type: ignore[arg-type]
            view.target = aten.reshape.default if strides is None else aten.view.default


def _without(copy: Node) -> dict[Node, TensorSpec] | str:
    """The specs that the views of ``copy`` have without it, or why it stays."""
    source = copy.args[0]
    assert isinstance(source, Node)
    old = tensor(source)
    if old is None or not alias.may_drop_copy(copy, source):
        return "the caller sees how it lies"
    if old.ndim and old.stride[-1] != 1:
        return "its innermost elements are not neighbours in memory"
    return relaid(copy, old)


def relaid(value: Node, found: TensorSpec) -> dict[Node, TensorSpec] | str:
    """The specs of the views of ``value`` if it lies as ``found``, or why a reader forbids that."""
    changed = {value: found}
    for view in alias.views(value):
        for reader in view.users:
            reason = _reread(reader, changed)
            if reason is not None:
                return reason
    del changed[value]
    return changed


def _reread(reader: Node, changed: dict[Node, TensorSpec]) -> str | None:
    """Infer ``reader`` with the changed specs; why it cannot do without the copy, or None."""
    if reader.op != "call_function":
        return "the caller sees how it lies"

    def now(node: Node) -> Any:
        return changed.get(node, spec(node))

    try:
        found = shapes.infer(
            callee(reader), tuple(map_arg(reader.args, now)), dict(map_arg(reader.kwargs, now))
        )
    except (ValueError, RuntimeError, NotImplementedError):
        return f"{reader.target} needs it in one piece"
    if alias.is_view(reader) and isinstance(found, TensorSpec):
        changed[reader] = found
        return None
    return (
        None
        if is_same(found, spec(reader))
        else f"the result of {reader.target} would lie otherwise"
    )
