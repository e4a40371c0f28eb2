"""Pass ``merge_linear``: linear layers that read the same input become one product."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from torch.fx import GraphModule, Node

from torch_aio.graph import alias
from torch_aio.graph.drop_copies import relaid, respell
from torch_aio.graph.fuel import spend
from torch_aio.graph.hoist_constants import is_constant
from torch_aio.graph.rewrite import aten, emit, operands, refuse, spec, sweep_dead
from torch_aio.ir.spec import TensorSpec, contiguous_stride
from torch_aio.ir.symbols import product
from torch_aio.plan.rows import row_of

_NAME = "merge_linear"


def merge_linear(gm: GraphModule) -> int:
    """linear(x, v, b), linear(x, w) -> slices of linear(x, cat([v, w]), cat([b, 0])).

    Any number of layers of any sizes, all in int8 or none. The weights are constants, so their
    concatenation is packed once and the layers' own packs are not made; readers must take the
    strides of a slice.
    """
    if any(alias.is_write(node) and node.users for node in gm.graph.nodes):
        return 0
    layers: dict[tuple[Node, bool], list[Node]] = {}
    for node in gm.graph.find_nodes(op="call_function", target=aten.linear.default):
        key = node.all_input_nodes[0], bool(node.meta.get("int8"))
        layers.setdefault(key, []).append(node)
    count = sum(_merge(same) for same in layers.values() if len(same) > 1)
    sweep_dead(gm.graph)
    return count


def _merge(layers: Sequence[Node]) -> bool:
    """Merge those of one input that may be; whether there were two or more."""
    fitting = [layer for layer in layers if _fits(layer)]
    if len(fitting) < 2 or not spend():
        return False
    first, (x, *_) = fitting[0], operands(fitting[0])
    merged = emit(first.graph, first, aten.linear.default, (x, *_constants(fitting, first)))
    merged.meta["int8"] = first.meta.get("int8", False)
    merged.meta["names"] = tuple(n for layer in fitting for n in layer.meta.get("names", ()))
    last = spec(merged).ndim - 1
    ends = list(accumulate(_width(layer) for layer in fitting))
    for layer, end in zip(fitting, ends, strict=True):
        bounds = (last, end - _width(layer), end)
        part = emit(layer.graph, layer, aten.slice.Tensor, (merged, *bounds), like=layer)
        changed = relaid(layer, spec(part))
        assert not isinstance(changed, str), changed
        layer.replace_all_uses_with(part)
        layer.graph.erase_node(layer)
        respell(changed)
    return True


def _fits(layer: Node) -> bool:
    reason = _why_not(layer)
    if reason is not None:
        refuse(layer, _NAME, reason)
    return reason is None


def _why_not(layer: Node) -> str | None:
    x, *held = operands(layer)
    if not all(is_constant(operand) for operand in held):
        return "its weights are no constants"
    rows = product(spec(x).shape[:-1])
    if isinstance(rows, int) and rows <= 1:
        return "one row reads the weights as they lie"
    if any((row := row_of(user)) and row.chain for user in layer.users):
        return "what follows is computed in its registers"
    found: TensorSpec = spec(layer)
    stride = contiguous_stride((*found.shape[:-1], 2 * found.shape[-1]))
    changed = relaid(layer, TensorSpec(found.shape, found.dtype, stride))
    return changed if isinstance(changed, str) else None


def _width(layer: Node) -> int:
    width = spec(operands(layer)[1]).shape[0]
    assert isinstance(width, int)
    return width


def _constants(layers: Sequence[Node], before: Node) -> list[Node]:
    """The weights one below another, and the biases if there are any (-0.0 changes no number)."""
    graph = before.graph
    weights = [operands(layer)[1] for layer in layers]
    biases = [(*operands(layer), None)[2] for layer in layers]
    for constant in (*weights, *biases):
        if isinstance(constant, Node):
            _hoist(constant, before)
    joined = [emit(graph, before, aten.cat.default, (weights, 0))]
    if any(bias is not None for bias in biases):
        kind = {"dtype": spec(weights[0]).dtype}
        whole = [
            emit(graph, before, aten.full.default, ([_width(layer)], -0.0), kind)
            if bias is None
            else bias
            for layer, bias in zip(layers, biases, strict=True)
        ]
        joined.append(emit(graph, before, aten.cat.default, (whole, 0)))
    return joined


def _hoist(constant: Node, before: Node) -> None:
    """Move a constant, and what it is computed from, before a node."""
    if constant < before:
        return
    for source in constant.all_input_nodes:
        _hoist(source, before)
    before.prepend(constant)
