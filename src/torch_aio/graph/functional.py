"""In-place operators become functional ones, writes into inputs one trailing ``copy_`` each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from torch_aio.graph import alias, rewrite
from torch_aio.graph.rewrite import Value, aten, emit, refuse, spec
from torch_aio.ir.spec import TensorSpec


def functionalise(gm: GraphModule) -> int:
    """relu_(x); y = x + 1 -> r = relu(x); y = r + 1 (and copy_(x, r) at the end for an input x).

    A write through a view is scattered into its base, later readers of the base and of its views
    read the new value. What cannot be followed stays in place, all of that base's writes together.
    """
    nodes = list(gm.graph.nodes)
    position = {node: i for i, node in enumerate(nodes)}
    writes = [n for n in nodes if alias.is_write(n) and not _is_trailing_copy(n)]
    roots: dict[Node, list[Node]] = {}
    for write in writes:
        roots.setdefault(_root(write), []).append(write)
    count = 0
    for root, group in roots.items():
        reason = next((r for r in map(_obstacle, group) if r), None)
        if reason is not None:
            for write in group:
                refuse(write, "normalise", reason)
            continue
        _Versions(root, nodes, position).run(group)
        count += len(group)
    if count:
        rewrite.respec(gm)
    return count


def _is_trailing_copy(node: Node) -> bool:
    return (
        node.target is aten.copy_.default
        and not node.users
        and isinstance(node.args[0], Node)
        and node.args[0].op == "placeholder"
    )


def _root(node: Node) -> Node:
    """The base of what ``node`` writes, through views and earlier writes."""
    while (alias.is_view(node) or alias.is_write(node)) and isinstance(node.args[0], Node):
        node = node.args[0]
    return node


def _obstacle(write: Node) -> str | None:
    """Why this write cannot become functional, or None."""
    target = write.args[0]
    if not isinstance(target, Node) or not isinstance(spec(target), TensorSpec):
        return "writes into something else than one tensor"
    if functional_overload(write.target) is None:
        return f"{write.target} has no functional form"
    if _root(write).op == "get_attr":
        return "writes into a constant of the module"
    node = target
    while node is not _root(write):
        if alias.is_view(node) and node.target not in _SCATTER:
            return f"writes through {node.target}, which has no inverse"
        node = node.args[0]  # type: ignore[assignment]
    return None


def functional_overload(target: Any) -> Any:
    """``aten.relu_.default`` -> ``aten.relu.default``; None if there is none."""
    if target is aten.copy_.default:
        return target
    packet, _, overload = str(target).removeprefix("aten.").rpartition(".")
    if not packet.endswith("_"):
        return None
    found = getattr(aten, packet[:-1], None)
    return getattr(found, overload, None) if found is not None else None


class _Versions:
    """The current value of one base, and of each of its views, while its graph is walked."""

    def __init__(self, root: Node, nodes: list[Node], position: dict[Node, int]) -> None:
        self.root = root
        self.nodes = nodes
        self.position = position
        self.value: dict[Node, Node] = {root: root}

    def run(self, writes: list[Node]) -> None:
        """Rewrite every write, in order, and every later reader."""
        pending = set(writes)
        first = self.position[writes[0]]
        members = set(self._family())
        for node in self.nodes[first:]:
            if node in pending:
                self._write(node)
            elif not (node in members and alias.is_view(node)):
                self._reread(node, members)
            elif self.position[node] > first:
                self.value.pop(node, None)
        if self.root.op == "placeholder":
            self._write_back()
        for node in reversed(self.nodes):
            if node in members and not node.users and node.op == "call_function":
                node.graph.erase_node(node)

    def _family(self) -> list[Node]:
        found = [self.root]
        for member in found:
            found.extend(
                user
                for user in member.users
                if user.args
                and user.args[0] is member
                and (alias.is_view(user) or (alias.is_write(user) and not _is_trailing_copy(user)))
                and user not in found
            )
        return found

    def read(self, node: Node, before: Node) -> Node:
        """The value of a member of the family as it is now."""
        if node in self.value:
            return self.value[node]
        source = node.args[0]
        assert isinstance(source, Node)
        now = self.read(source, before)
        if alias.is_write(node):
            return now
        if now is source and self.position[node] < self.position.get(before, 1 << 60):
            return node
        target = aten.reshape.default if node.target is aten.view.default else node.target
        self.value[node] = emit(
            node.graph, before, target, (now, *node.args[1:]), node.kwargs, like=node
        )
        return self.value[node]

    def _reread(self, node: Node, members: set[Node]) -> None:
        def current(n: Node) -> Node:
            return self.read(n, node) if n in members else n

        node.args = map_arg(node.args, current)
        node.kwargs = map_arg(node.kwargs, current)

    def _write(self, write: Node) -> None:
        target = write.args[0]
        assert isinstance(target, Node)
        old = self.read(target, write)
        rest = [self._argument(a, write) for a in write.args[1:]]
        kwargs = {k: self._argument(v, write) for k, v in write.kwargs.items()}
        new = _functional(write, old, rest, kwargs)
        self._scatter(target, new, write)

    def _argument(self, value: Value, write: Node) -> Value:
        family = set(self._family())
        return map_arg(value, lambda n: self.read(n, write) if n in family else n)

    def _scatter(self, node: Node, new: Node, before: Node) -> None:
        while alias.is_write(node):
            node = node.args[0]  # type: ignore[assignment]
        if node is self.root:
            self.value = {self.root: new}
            return
        source = node.args[0]
        assert isinstance(source, Node)
        now = self.read(source, before)
        self._scatter(source, _SCATTER[node.target](node, now, new, before), before)

    def _write_back(self) -> None:
        output = next(n for n in reversed(self.root.graph.nodes) if n.op == "output")
        new = self.value[self.root]
        if new is self.root:
            return
        with self.root.graph.inserting_before(output):
            copy = self.root.graph.call_function(aten.copy_.default, (self.root, new))
        copy.meta.update(spec=spec(self.root), source="", path="")


def _functional(write: Node, old: Node, rest: list[Value], kwargs: dict[str, Value]) -> Node:
    """The value that ``write`` leaves in ``old``: its shape and dtype stay."""
    if write.target is aten.copy_.default:
        return _copied(write, old, rest[0])
    target = functional_overload(write.target)
    new = emit(write.graph, write, target, (old, *rest), kwargs, like=write)
    if spec(new).dtype != spec(old).dtype:
        new = emit(write.graph, write, aten._to_copy.default, (new,), {"dtype": spec(old).dtype})
    return new


def _copied(write: Node, old: Node, source: Node) -> Node:
    graph, want = write.graph, spec(old)
    if spec(source).dtype != want.dtype:
        source = emit(graph, write, aten._to_copy.default, (source,), {"dtype": want.dtype})
    if spec(source).shape != want.shape:
        source = emit(graph, write, aten.expand.default, (source, list(want.shape)))
    return emit(graph, write, aten.clone.default, (source,))


def _inverse_view(view: Node, base: Node, new: Node, before: Node) -> Node:
    shape = list(spec(base).shape)
    return emit(view.graph, before, aten.reshape.default, (new, shape), like=view)


def _inverse_transpose(view: Node, base: Node, new: Node, before: Node) -> Node:
    return emit(view.graph, before, view.target, (new, *view.args[1:]), like=view)


def _inverse_permute(view: Node, base: Node, new: Node, before: Node) -> Node:
    dims: Any = view.args[1]
    order = [d % len(dims) for d in dims]
    back = [order.index(d) for d in range(len(order))]
    return emit(view.graph, before, aten.permute.default, (new, back), like=view)


def _scatter_with(target: Any) -> Callable[[Node, Node, Node, Node], Node]:
    def scatter(view: Node, base: Node, new: Node, before: Node) -> Node:
        return emit(view.graph, before, target, (base, new, *view.args[1:]), view.kwargs, like=view)

    return scatter


_SCATTER: dict[Any, Callable[[Node, Node, Node, Node], Node]] = {
    aten.select.int: _scatter_with(aten.select_scatter.default),
    aten.slice.Tensor: _scatter_with(aten.slice_scatter.default),
    **dict.fromkeys(
        (aten.transpose.int, aten.t.default, aten.mT.default, aten.numpy_T.default),
        _inverse_transpose,
    ),
    aten.permute.default: _inverse_permute,
    **dict.fromkeys(
        (
            aten.view.default,
            aten.unsqueeze.default,
            aten.squeeze.dim,
            aten.squeeze.dims,
            aten.squeeze.default,
        ),
        _inverse_view,
    ),
    **dict.fromkeys((aten.alias.default, aten.detach.default), lambda v, b, n, at: n),
}
