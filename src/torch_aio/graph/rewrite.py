"""How passes change a graph: emit a node with its spec, replace a value, say why not.

Every pass works on the graph form (ARCHITECTURE.md): after each change the graph still runs in
plain PyTorch and every node's ``meta["spec"]`` is what running it gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from torch_aio.graph.compare import is_same, is_symbolic, same_sizes, same_strides
from torch_aio.graph.fuel import spend
from torch_aio.ir import shapes
from torch_aio.ir.spec import TensorSpec

aten = torch.ops.aten

Value = Any  # what a node's argument may be: Node, number, dtype, None, or a list of those
Rule = Callable[[Node], Value]  # the value that replaces the node, or None: leave it
INHERITED = ("source", "path", "name")
# How shape functions say that they cannot tell (an operator or a mode of it that they do not know).
_UNTOLD = (NotImplementedError, ValueError, TypeError)


def emit(
    graph: Graph,
    before: Node,
    target: Any,
    args: tuple[Value, ...],
    kwargs: Mapping[str, Value] | None = None,
    *,
    like: Node | None = None,
) -> Node:
    """Insert a call before ``before``, its spec inferred, its origin that of ``like``."""
    kwargs = dict(kwargs or {})
    with graph.inserting_before(before):
        node = graph.call_function(target, args, kwargs)
    origin = like if like is not None else before
    node.meta.update({key: origin.meta[key] for key in INHERITED[:2] if key in origin.meta})
    try:
        node.meta["spec"] = infer(node)
    except Exception:
        graph.erase_node(node)
        raise
    return node


def infer(node: Node) -> Any:
    """The spec that ``node`` has by its arguments' specs."""
    return shapes.infer(
        callee(node), tuple(map_arg(node.args, spec)), dict(map_arg(node.kwargs, spec))
    )


def callee(node: Node) -> Callable[..., Any]:
    """The operator that a call node calls."""
    assert callable(node.target)
    return node.target


def operands(node: Node) -> tuple[Value, ...]:
    """The positional arguments of a call."""
    return node.args


def spec(node: Node) -> Any:
    """The spec of any node (an Int for int nodes)."""
    return node.meta["spec"]


def tensor(value: Value) -> TensorSpec | None:
    """The spec of a node that holds one tensor, else None."""
    if not isinstance(value, Node):
        return None
    found = value.meta.get("spec")
    return found if isinstance(found, TensorSpec) else None


def bind(node: Node) -> dict[str, Value]:
    """The arguments of a call by the names in its operator's schema, defaults filled in."""
    bound: dict[str, Value] = {}
    for position, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if position < len(node.args) and not argument.kwarg_only:
            bound[argument.name] = node.args[position]
        elif argument.name in node.kwargs:
            bound[argument.name] = node.kwargs[argument.name]
        elif argument.has_default_value():
            bound[argument.name] = argument.default_value
        else:
            bound[argument.name] = None
    return bound


def calls(value: Value, *targets: Any) -> bool:
    """Whether ``value`` is a node that calls one of the operators."""
    return isinstance(value, Node) and value.op == "call_function" and value.target in targets


def only_user(node: Node) -> Node | None:
    """The one node that reads ``node`` (once or more), or None."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def dim(value: int, ndim: int) -> int:
    """A dimension counted from the front."""
    return value + ndim if value < 0 else value


def replace(node: Node, new: Value) -> bool:
    """Let every reader of ``node`` read ``new``; False if out of fuel.

    Where ``new`` lies in memory in another way, a clone restores the strides that the readers (and
    the caller) were promised; ``simplify`` drops it where nobody depends on them.
    """
    if not spend():
        return False
    if isinstance(new, Node):
        new = _restored(node, new)
        for key in INHERITED:
            if new.op == "call_function" and node.meta.get(key) and not new.meta.get(key):
                new.meta[key] = node.meta[key]
        node.replace_all_uses_with(new)
    else:
        for user in list(node.users):
            user.args = map_arg(user.args, lambda n: new if n is node else n)
            user.kwargs = map_arg(user.kwargs, lambda n: new if n is node else n)
    node.graph.erase_node(node)
    return True


def replace_as_is(node: Node, new: Node) -> bool:
    """Let every reader of ``node`` read ``new`` though it lies otherwise; False if out of fuel."""
    if not spend():
        return False
    node.replace_all_uses_with(new)
    node.graph.erase_node(node)
    return True


def _restored(node: Node, new: Node) -> Node:
    old, got = spec(node), spec(new)
    if not isinstance(old, TensorSpec) or is_same(old, got):
        return new
    same = same_sizes(old.shape, got.shape) or old.shape == got.shape  # by a guard: s0 is 2 * s1
    if got.dtype != old.dtype or not same:
        raise AssertionError(f"{node.format_node()}: {old} cannot become {got}")
    return new if same_strides(old, got) else restrided(new, old, node)


def restrided(value: Node, wanted: TensorSpec, before: Node) -> Node:
    """``value`` copied to the strides of ``wanted`` (a dense layout): permute, clone, permute."""
    graph, order = value.graph, _outer_first(wanted)
    kind = {"memory_format": torch.contiguous_format}
    if order == list(range(wanted.ndim)):
        return emit(graph, before, aten.clone.default, (value,), kind, like=value)
    turned = emit(graph, before, aten.permute.default, (value, order), like=value)
    copied = emit(graph, before, aten.clone.default, (turned,), kind, like=value)
    back = [order.index(d) for d in range(len(order))]
    return emit(graph, before, aten.permute.default, (copied, back), like=value)


def _outer_first(layout: TensorSpec) -> list[int]:
    """The dimensions by falling stride, as they are where that cannot be told."""
    if layout.is_contiguous or not all(isinstance(s, int) for s in layout.stride):
        return list(range(layout.ndim))
    return sorted(range(layout.ndim), key=lambda d: -layout.stride[d])


def unify(gm: GraphModule) -> None:
    """Express all symbolic specs by our own shape functions, so that equal sizes look equal.

    PyTorch writes (s - 2) // 4 where we write ((s - 2) // 2) // 2.
    """
    if not any(is_symbolic(spec(n)) for n in gm.graph.find_nodes(op="placeholder")):
        return
    for node in gm.graph.nodes:
        if node.op == "call_function" and not is_effect(node) and "spec" in node.meta:
            with suppress(*_UNTOLD):
                node.meta["spec"] = infer(node)


def respec(gm: GraphModule) -> None:
    """Infer every spec anew after a change of strides; what the caller gets keeps its strides."""
    for node in gm.graph.nodes:
        if node.op == "output":
            _keep_promised(node)
        elif node.op == "call_function" and "spec" in node.meta:
            node.meta.setdefault("promised", node.meta["spec"])
            node.meta["spec"] = _respec(node)
    for node in gm.graph.nodes:
        node.meta.pop("promised", None)


def _respec(node: Node) -> Any:
    try:
        return infer(node)
    except NotImplementedError:
        return spec(node)
    except (ValueError, RuntimeError):
        if node.target is not aten.view.default:
            raise
        node.target = aten.reshape.default
        return infer(node)


def _keep_promised(output: Node) -> None:
    def kept(node: Node) -> Node:
        old, new = node.meta.get("promised"), node.meta.get("spec")
        if not isinstance(old, TensorSpec) or not isinstance(new, TensorSpec) or is_same(old, new):
            return node
        return restrided(node, old, output)

    output.args = map_arg(output.args, kept)


def refuse(node: Node, name: str, reason: str) -> None:
    """Say why pass ``name`` left ``node`` as it is (explain shows it)."""
    reasons = node.meta.setdefault("refused", {})
    reasons[name] = reason


def apply(gm: GraphModule, rules: Mapping[Any, Rule]) -> int:
    """Rewrite nodes by the rule of their operator until none fires; returns how often one did."""
    total = 0
    for _ in range(8):
        fired = _sweep(gm.graph, rules)
        total += fired
        if not fired:
            break
    return total


def _sweep(graph: Graph, rules: Mapping[Any, Rule]) -> int:
    fired = 0
    for node in list(graph.nodes):
        rule = rules.get(node.target) if node.op == "call_function" and not node._erased else None
        new = _tried(rule, node) if rule is not None else None
        if new is not None:
            fired += replace(node, new)
    sweep_dead(graph)
    return fired


def _tried(rule: Rule, node: Node) -> Value:
    try:
        return rule(node)
    except _UNTOLD as error:
        refuse(node, rule.__name__, str(error))
        return None


def sweep_dead(graph: Graph) -> int:
    """Erase calls that nobody reads, except writes into inputs; returns how many."""
    count = 0
    for node in reversed(graph.nodes):
        if node.op == "call_function" and not node.users and not is_effect(node):
            graph.erase_node(node)
            count += 1
    return count


def is_effect(node: Node) -> bool:
    """Whether running ``node`` changes something besides its own value."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)
