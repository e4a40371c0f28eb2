"""One step of a recurrent network, spelled out: products, slices of gates, activations.

Where batch sizes are equal but differ in spelling, a sum takes its first operand's: the state comes
first, because the cell's result has the state's shape.
"""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from torch_aio.graph.rewrite import Rule, Value, aten, bind, emit, refuse, spec


def lstm_item(node: Node) -> Value:
    """getitem(lstm_cell(x, [h, c], ..), 0 | 1) -> o * tanh(c') | c' = f * c + i * g.

    The gates i, f, g, o are parts of linear(h, w_hh, b_hh) + linear(x, w_ih, b_ih). The other item
    spells them again; ``simplify`` merges what is equal.
    """
    call, index = node.args
    assert isinstance(call, Node)
    bound = bind(call)
    hidden, cell = bound["hx"]
    gates = emit(node.graph, node, aten.add.Tensor, _products(node, bound, hidden))
    parts = _parts(node, gates, 4)
    if parts is None:
        return None
    i, f, o = (_call(node, aten.sigmoid.default, parts[n]) for n in (0, 1, 3))
    g = _call(node, aten.tanh.default, parts[2])
    kept, added = _call(node, aten.mul.Tensor, cell, f), _call(node, aten.mul.Tensor, i, g)
    cell = _call(node, aten.add.Tensor, kept, added)
    if index in (1, -1):
        return cell
    return _call(node, aten.mul.Tensor, o, _call(node, aten.tanh.default, cell))


def gru_cell(node: Node) -> Value:
    """gru_cell(x, h, ..) -> n + z * (h - n), n = tanh(r * h_n + x_n), r, z = sigmoid(h_ + x_)."""
    bound = bind(node)
    hidden = bound["hx"]
    states, inputs = (_parts(node, p, 3) for p in _products(node, bound, hidden))
    if inputs is None or states is None:
        return None
    r, z = (
        _call(node, aten.sigmoid.default, _call(node, aten.add.Tensor, states[n], inputs[n]))
        for n in (0, 1)
    )
    gated = _call(node, aten.mul.Tensor, states[2], r)
    new = _call(node, aten.tanh.default, _call(node, aten.add.Tensor, gated, inputs[2]))
    moved = _call(node, aten.mul.Tensor, _call(node, aten.sub.Tensor, hidden, new), z)
    return _call(node, aten.add.Tensor, moved, new)


def _plain_cell(activation: Any) -> Rule:
    def plain_cell(node: Node) -> Value:
        """rnn_tanh_cell(x, h, ..) -> tanh(linear(h, ..) + linear(x, ..)); also relu."""
        bound = bind(node)
        total = emit(node.graph, node, aten.add.Tensor, _products(node, bound, bound["hx"]))
        return _call(node, activation, total)

    return plain_cell


def _products(node: Node, bound: dict[str, Any], hidden: Node) -> tuple[Node, Node]:
    """Of the state and of the input with their weights."""
    sides = ((hidden, "hh"), (bound["input"], "ih"))
    h, x = (
        _call(node, aten.linear.default, source, bound[f"w_{key}"], bound[f"b_{key}"])
        for source, key in sides
    )
    return h, x


def _parts(node: Node, gates: Node, count: int) -> list[Node] | None:
    """The columns of ``gates`` in ``count`` equal parts."""
    columns = spec(gates).shape[-1]
    if not isinstance(columns, int) or spec(gates).ndim != 2:
        refuse(node, "normalise", "a recurrent cell whose width is not known")
        return None
    width = columns // count
    starts = range(0, columns, width)
    return [_call(node, aten.slice.Tensor, gates, 1, at, at + width) for at in starts]


def _call(node: Node, target: Any, *args: Value) -> Node:
    return emit(node.graph, node, target, args)


ITEMS: dict[Any, Rule] = {aten.lstm_cell.default: lstm_item}
RULES: dict[Any, Rule] = {
    aten.gru_cell.default: gru_cell,
    aten.rnn_tanh_cell.default: _plain_cell(aten.tanh.default),
    aten.rnn_relu_cell.default: _plain_cell(aten.relu.default),
}
