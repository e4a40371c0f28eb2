"""Pass ``normalise``: each spelling of an operator becomes the canonical one, the answer stays."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.fx import Node

from graph_forms import Hand, agree, targets
from torch_aio.graph.normalise import normalise
from torch_aio.graph.simplify import simplify

aten = torch.ops.aten
Build = Callable[[Hand, Node], Any]


def image() -> torch.Tensor:
    return torch.randn(2, 6, 8, 8)


def matrix() -> torch.Tensor:
    return torch.randn(4, 6)


def batch() -> torch.Tensor:
    return torch.randn(3, 4, 6)


def weights(h: Hand, *shape: int) -> Node:
    return h.constant(torch.rand(*shape) + 0.5)


def conv(h: Hand, x: Node, *rest: Any, op: Any = aten._convolution.default) -> Node:
    return h.op(
        op, x, weights(h, 4, 6, 3, 3), None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, *rest
    )


def norm_args(h: Hand) -> list[Node]:
    return [weights(h, 6) for _ in range(4)]


def native_norm(h: Hand, x: Node) -> Node:
    args = (*norm_args(h), 0.1, 1e-5)
    return h.op(
        operator.getitem, h.op(aten._native_batch_norm_legit_no_training.default, x, *args), 0
    )


def item(h: Hand, op: Any, *args: Any, index: int = 0) -> Node:
    return h.op(operator.getitem, h.op(op, *args), index)


SPELLINGS: dict[str, tuple[Callable[[], torch.Tensor], Build, list[str]]] = {
    "_convolution": (image, lambda h, x: conv(h, x, False, False, True, True), ["conv2d"]),
    "convolution": (image, lambda h, x: conv(h, x, op=aten.convolution.default), ["conv2d"]),
    "conv_same": (
        image,
        lambda h, x: h.op(aten.conv2d.padding, x, weights(h, 4, 6, 3, 3), None, [1, 1], "same"),
        ["conv2d"],
    ),
    "conv_transpose": (
        image,
        lambda h, x: h.op(aten.conv_transpose2d.input, x, weights(h, 6, 4, 3, 3), None, [2, 2]),
        ["convolution"],
    ),
    "native_batch_norm": (image, native_norm, ["batch_norm"]),
    "batch_norm": (
        image,
        lambda h, x: h.op(aten.batch_norm.default, x, *norm_args(h), False, 0.1, 1e-5, True),
        ["batch_norm"],
    ),
    "native_layer_norm": (
        matrix,
        lambda h, x: item(
            h, aten.native_layer_norm.default, x, [6], weights(h, 6), weights(h, 6), 1e-5
        ),
        ["layer_norm"],
    ),
    "native_group_norm": (
        image,
        lambda h, x: item(
            h, aten.native_group_norm.default, x, weights(h, 6), None, 2, 6, 64, 3, 1e-5
        ),
        ["group_norm"],
    ),
    "max_pool_indices": (
        image,
        lambda h, x: item(h, aten.max_pool2d_with_indices.default, x, [2, 2]),
        ["max_pool2d"],
    ),
    "max_pool_int": (image, lambda h, x: h.op(aten.max_pool2d.default, x, 3, 2, 1), ["max_pool2d"]),
    "avg_pool": (image, lambda h, x: h.op(aten.avg_pool2d.default, x, 2), ["avg_pool2d"]),
    "addmm": (
        matrix,
        lambda h, x: h.op(
            aten.addmm.default, weights(h, 5), x, h.op(aten.t.default, weights(h, 5, 6))
        ),
        ["linear"],
    ),
    "addmm_untransposed": (
        matrix,
        lambda h, x: h.op(aten.addmm.default, weights(h, 5), x, weights(h, 6, 5)),
        ["transpose", "linear"],
    ),
    "addmm_scaled": (
        matrix,
        lambda h, x: h.op(aten.addmm.default, x, x, weights(h, 6, 6), beta=2, alpha=0.5),
        ["transpose", "linear", "mul", "mul", "add"],
    ),
    "mm": (
        matrix,
        lambda h, x: h.op(aten.mm.default, x, h.op(aten.t.default, weights(h, 5, 6))),
        ["linear"],
    ),
    "bmm": (batch, lambda h, x: h.op(aten.bmm.default, x, weights(h, 3, 6, 2)), ["matmul"]),
    "baddbmm": (
        batch,
        lambda h, x: h.op(aten.baddbmm.default, weights(h, 3, 4, 2), x, weights(h, 3, 6, 2)),
        ["matmul", "add"],
    ),
    "einsum": (
        batch,
        lambda h, x: h.op(aten.einsum.default, "bik,bjk->bij", [x, weights(h, 3, 5, 6)]),
        ["permute", "matmul"],
    ),
    "einsum_groups": (
        image,
        lambda h, x: h.op(aten.einsum.default, "bhwc,hkc->bhwk", [x, weights(h, 6, 5, 8)]),
        ["permute", "reshape", "permute", "matmul", "view", "permute"],
    ),
    "flash": (
        image,
        lambda h, x: item(
            h,
            aten._scaled_dot_product_flash_attention_for_cpu.default,
            *[h.op(aten.transpose.int, x, 1, 2)] * 3,
        ),
        ["transpose", "scaled_dot_product_attention"],
    ),
    "_softmax": (matrix, lambda h, x: h.op(aten._softmax.default, x, -1, False), ["softmax"]),
    "softmax_dtype": (
        matrix,
        lambda h, x: h.op(aten.softmax.int, x, -1, torch.float64),
        ["_to_copy", "softmax"],
    ),
    "flatten": (image, lambda h, x: h.op(aten.flatten.using_ints, x, 1), ["view"]),
    "reshape": (image, lambda h, x: h.op(aten.reshape.default, x, [2, -1]), ["view"]),
    "reshape_copies": (
        matrix,
        lambda h, x: h.op(aten.reshape.default, h.op(aten.t.default, x), [-1]),
        ["transpose", "reshape"],
    ),
    "contiguous": (
        matrix,
        lambda h, x: h.op(aten.relu.default, h.op(aten.contiguous.default, x)),
        ["relu"],
    ),
    "contiguous_copies": (
        matrix,
        lambda h, x: h.op(aten.contiguous.default, h.op(aten.t.default, x)),
        ["transpose", "clone"],
    ),
    "dropout": (
        matrix,
        lambda h, x: h.op(aten.relu.default, h.op(aten.dropout.default, x, 0.5, False)),
        ["relu"],
    ),
    "to_same": (
        matrix,
        lambda h, x: h.op(aten.relu.default, h.op(aten.to.dtype, x, torch.float32)),
        ["relu"],
    ),
    "to_other": (matrix, lambda h, x: h.op(aten.to.dtype, x, torch.float64), ["_to_copy"]),
    "numpy_T": (batch, lambda h, x: h.op(aten.numpy_T.default, x), ["permute"]),
    "add_scalar": (matrix, lambda h, x: h.op(aten.add.Scalar, x, 2, 3), ["add"]),
    "add_alpha": (matrix, lambda h, x: h.op(aten.add.Tensor, x, x, alpha=3), ["mul", "add"]),
    "rsub": (matrix, lambda h, x: h.op(aten.rsub.Scalar, x, 1), ["sub"]),
    "square": (matrix, lambda h, x: h.op(aten.square.default, x), ["mul"]),
    "pow": (matrix, lambda h, x: h.op(aten.pow.Tensor_Scalar, x, 3), ["mul", "mul"]),
    "true_divide": (matrix, lambda h, x: h.op(aten.true_divide.Tensor, x, x), ["div"]),
    "and": (
        matrix,
        lambda h, x: h.op(
            aten.__and__.Tensor, h.op(aten.gt.Scalar, x, 0), h.op(aten.greater.Scalar, x, 1)
        ),
        ["gt", "gt", "bitwise_and"],
    ),
    "masked_fill": (
        matrix,
        lambda h, x: h.op(aten.masked_fill.Scalar, x, h.op(aten.gt.Scalar, x, 0), -1.0),
        ["gt", "full", "where"],
    ),
    "where_scalar": (
        matrix,
        lambda h, x: h.op(aten.where.ScalarOther, h.op(aten.gt.Scalar, x, 0), x, 0.5),
        ["gt", "full", "where"],
    ),
    "relu6": (matrix, lambda h, x: h.op(aten.relu6.default, x), ["hardtanh"]),
    "clamp_min": (matrix, lambda h, x: h.op(aten.clamp_min.default, x, 0.1), ["clamp"]),
    "mean": (batch, lambda h, x: h.op(aten.mean.default, x), ["mean"]),
    "mean of planes": (image, lambda h, x: h.op(aten.mean.dim, x, [-1, 2]), ["mean", "view"]),
    "split": (
        matrix,
        lambda h, x: h.op(aten.relu.default, item(h, aten.split.Tensor, x, 2, 1, index=2)),
        ["slice", "relu"],
    ),
    "unbind": (
        batch,
        lambda h, x: h.op(aten.relu.default, item(h, aten.unbind.int, x, 1, index=-1)),
        ["select", "relu"],
    ),
    "chunk": (
        matrix,
        lambda h, x: h.op(aten.relu.default, item(h, aten.chunk.default, x, 3, -1, index=1)),
        ["slice", "relu"],
    ),
    "stack": (
        matrix,
        lambda h, x: h.op(aten.stack.default, [x, x], -1),
        ["unsqueeze", "unsqueeze", "cat"],
    ),
    "ones_like": (
        matrix,
        lambda h, x: h.op(aten.mul.Tensor, x, h.op(aten.ones_like.default, x)),
        ["full", "mul"],
    ),
    "size": (
        matrix,
        lambda h, x: h.op(aten.view.default, x, [h.op(aten.sym_size.int, x, 1), -1]),
        ["view"],
    ),
    "pad_constant": (
        matrix,
        lambda h, x: h.op(aten.pad.default, x, [1, 2], "constant", 0.5),
        ["constant_pad_nd"],
    ),
    "pad_reflect": (
        batch,
        lambda h, x: h.op(aten.pad.default, x, [0, 3], "reflect"),
        ["slice", "flip", "cat"],
    ),
    "reflection_pad": (
        image,
        lambda h, x: h.op(aten.reflection_pad2d.default, x, [1, 0, 2, 3]),
        ["slice", "cat", "slice", "flip", "slice", "flip", "cat"],
    ),
    "replication_pad": (
        image,
        lambda h, x: h.op(aten.replication_pad2d.default, x, [1, 3, 0, 2]),
        ["slice", "slice", "expand", "cat", "slice", "expand", "cat"],
    ),
    "pad_circular": (
        image,
        lambda h, x: h.op(aten.pad.default, x, [1, 8, 0, 2], "circular"),
        ["slice", "cat", "slice", "cat"],
    ),
    "expand_same": (
        matrix,
        lambda h, x: h.op(aten.relu.default, h.op(aten.expand.default, x, [4, -1])),
        ["relu"],
    ),
    "slice_all": (
        matrix,
        lambda h, x: h.op(aten.relu.default, h.op(aten.slice.Tensor, x, 0, 0, 1 << 62)),
        ["relu"],
    ),
    "squeeze_none": (
        matrix,
        lambda h, x: h.op(aten.relu.default, h.op(aten.squeeze.dim, x, 0)),
        ["relu"],
    ),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_spelling_becomes_the_canonical_one(name: str) -> None:
    make, build, expected = SPELLINGS[name]
    torch.manual_seed(0)
    x = make()
    h = Hand(x)
    gm = h.done(build(h, h.inputs[0]))
    assert agree(gm, normalise, [x]) > 0
    assert targets(gm) == expected


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_normal_graph_stays_as_it_is(name: str) -> None:
    """normalise is idempotent."""
    make, build, _ = SPELLINGS[name]
    h = Hand(make())
    gm = h.done(build(h, h.inputs[0]))
    normalise(gm)
    assert normalise(gm) == 0


def cell(h: Hand, kind: str, x: Node, *, batch: int, bias: bool) -> list[Node]:
    """A recurrent cell of 6 inputs and 5 states and everything it returns."""
    rows = 5 * {"lstm": 4, "gru": 3}.get(kind, 1)
    state = [h.constant(torch.randn(batch, 5)) for _ in range(2 if kind == "lstm" else 1)]
    held = [weights(h, rows, 6), weights(h, rows, 5)]
    held += [h.constant(torch.randn(rows)) for _ in range(2 if bias else 0)]
    target = getattr(aten, f"{kind}_cell").default
    called = h.op(target, x, state if kind == "lstm" else state[0], *held)
    if kind != "lstm":
        return [called]
    return [h.op(operator.getitem, called, index) for index in (0, 1)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("kind", "products", "activations"),
    [("lstm", 2, 5), ("gru", 2, 3), ("rnn_tanh", 2, 1), ("rnn_relu", 2, 1)],
)
def test_recurrent_cells_are_spelled_out(
    kind: str, products: int, activations: int, batch: int, bias: bool
) -> None:
    """Both items of an LSTM cell share one computation."""
    x = torch.randn(batch, 6) * 0.3
    h = Hand(x)
    gm = h.done(*cell(h, kind, h.inputs[0], batch=batch, bias=bias))
    assert agree(gm, lambda gm: normalise(gm) + simplify(gm), [x]) > 0
    found = targets(gm, constants=True)
    assert found.count("linear") == products
    assert sum(name in ("sigmoid", "tanh", "relu") for name in found) == activations
    assert not any("cell" in name for name in found)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_cells_take_batches_that_symbols_spell_in_two_ways(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state's batch has a symbol of its own; the result has the state's shape."""
    monkeypatch.setenv("AIO_STRICT", "1")
    model = getattr(torch.nn, f"{kind}Cell")(3, 4).eval()
    compiled = torch.compile(model, backend="aio", dynamic=True)
    with torch.no_grad():
        for batch in (2, 5):
            h = torch.randn(batch, 4)
            state = (h, torch.randn(batch, 4)) if kind == "LSTM" else h
            x = torch.randn(batch, 3)
            torch.testing.assert_close(compiled(x, state), model(x, state))


@pytest.mark.parametrize(
    ("equation", "reason"),
    [
        ("ii,ij->ij", "einsum that takes a diagonal is not a matrix product"),
        ("ij,kl->ik", "einsum that sums an index of one operand only is not a matrix product"),
    ],
)
def test_an_einsum_that_is_no_product_is_refused_by_sentence(equation: str, reason: str) -> None:
    x = torch.randn(4, 4)
    h = Hand(x)
    gm = h.done(h.op(aten.einsum.default, equation, [h.inputs[0], h.inputs[0]]))
    assert agree(gm, normalise, [x]) == 0
    assert [n.meta["refused"] for n in gm.graph.nodes if "refused" in n.meta] == [
        {"normalise": reason}
    ]


def test_assertions_go() -> None:
    x = matrix()
    h = Hand(x)
    h.op(aten._assert_tensor_metadata.default, h.inputs[0], [4, 6], None, torch.float32)
    gm = h.done(h.op(aten.relu.default, h.inputs[0]))
    assert agree(gm, normalise, [x]) == 1
    assert targets(gm) == ["relu"]


def test_a_clone_of_an_input_that_is_returned_stays() -> None:
    """Else the caller would get an alias of what he passed."""
    x = matrix()
    h = Hand(x)
    gm = h.done(h.op(aten.clone.default, h.inputs[0]))
    assert agree(gm, normalise, [x]) == 0
    assert targets(gm) == ["clone"]


def test_one_of_two_returned_copies_stays() -> None:
    x = matrix()
    h = Hand(x)
    y = h.op(aten.relu.default, h.inputs[0])
    gm = h.done(y, h.op(aten.clone.default, y))
    normalise(gm)
    assert targets(gm) == ["relu", "clone"]


def test_origin_is_inherited() -> None:
    """What replaces a node tells the same source line and module path."""
    h = Hand(matrix())
    gm = h.done(h.op(aten.square.default, h.inputs[0]))
    normalise(gm)
    (node,) = (n for n in gm.graph.nodes if n.op == "call_function")
    assert (node.meta["source"], node.meta["path"]) == ("test.py:1: here", "layer")
