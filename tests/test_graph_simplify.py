"""Passes ``simplify`` and ``reinplace``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from graph_forms import Hand, agree, targets
from torch_aio.graph.reinplace import reinplace
from torch_aio.graph.simplify import simplify

aten = torch.ops.aten


def double_transpose(h: Hand, x: Any) -> Any:
    y = h.op(aten.transpose.int, h.op(aten.transpose.int, x, 1, 2), 1, 2)
    return h.op(aten.relu.default, y)


def permutes(h: Hand, x: Any) -> Any:
    y = h.op(aten.permute.default, h.op(aten.permute.default, x, [1, 2, 0]), [0, 2, 1])
    return h.op(aten.relu.default, y)


def views(h: Hand, x: Any) -> Any:
    return h.op(
        aten.relu.default, h.op(aten.view.default, h.op(aten.view.default, x, [-1]), [6, 20])
    )


def clone_then_view(h: Hand, x: Any) -> Any:
    turned = h.op(aten.transpose.int, x, 1, 2)
    dense = h.op(aten.clone.default, turned, memory_format=torch.contiguous_format)
    return h.op(aten.relu.default, h.op(aten.view.default, dense, [4, -1]))


def clone_of_clone(h: Hand, x: Any) -> Any:
    y = h.op(aten.transpose.int, h.op(aten.relu.default, x), 0, 1)
    y = h.op(aten.clone.default, y, memory_format=torch.contiguous_format)
    y = h.op(aten.transpose.int, y, 0, 1)
    return h.op(aten.clone.default, y, memory_format=torch.contiguous_format)


def times_one(h: Hand, x: Any) -> Any:
    return h.op(aten.relu.default, h.op(aten.mul.Tensor, x, 1.0))


def plus_zero(h: Hand, x: Any) -> Any:
    return h.op(aten.add.Tensor, x, 0.0)


def twice(h: Hand, x: Any) -> Any:
    return h.op(aten.add.Tensor, h.op(aten.exp.default, x), h.op(aten.exp.default, x))


def one_and_true(h: Hand, x: Any) -> Any:
    return h.op(aten.add.Tensor, h.op(aten.mul.Tensor, x, 2), h.op(aten.mul.Tensor, x, 2.0))


def unsqueezed(h: Hand, x: Any) -> Any:
    y = h.op(aten.squeeze.dims, h.op(aten.unsqueeze.default, x, 1), [1])
    return h.op(aten.relu.default, y)


def flat_linear(h: Hand, x: Any) -> Any:
    """A layer over rows, as GPT-2 writes it, and what follows over batches of them."""
    w, b = h.constant(torch.randn(3, 6)), h.constant(torch.randn(3))
    y = h.op(aten.linear.default, h.op(aten.view.default, x, [20, 6]), w, b)
    return h.op(aten.relu.default, h.op(aten.view.default, y, [4, 5, 3]))


def linear_in_heads(h: Hand, x: Any) -> Any:
    """A view that splits what the layer computes stays behind it."""
    y = h.op(aten.linear.default, x, h.constant(torch.randn(8, 6)))
    return h.op(aten.relu.default, h.op(aten.view.default, y, [4, 5, 2, 4]))


def linear_read_twice(h: Hand, x: Any) -> Any:
    """Another reader wants the layer's own shape: it is computed once."""
    y = h.op(aten.linear.default, x, h.constant(torch.randn(6, 6)))
    rows = h.op(aten.view.default, y, [20, 6])
    return h.op(aten.cat.default, [rows, h.op(aten.select.int, y, 0, 1)], 0)


def dead(h: Hand, x: Any) -> Any:
    h.op(aten.exp.default, h.op(aten.relu.default, x))
    return h.op(aten.neg.default, x)


CASES: list[tuple[Callable[[Hand, Any], Any], list[str]]] = [
    (double_transpose, ["relu"]),
    (permutes, ["transpose", "relu"]),
    (views, ["view", "relu"]),
    (clone_then_view, ["transpose", "reshape", "relu"]),
    (clone_of_clone, ["relu"]),
    (times_one, ["relu"]),
    (plus_zero, ["add"]),
    (twice, ["exp", "add"]),
    (one_and_true, ["mul", "mul", "add"]),
    (unsqueezed, ["relu"]),
    (flat_linear, ["linear", "relu"]),
    (linear_in_heads, ["linear", "view", "relu"]),
    (linear_read_twice, ["linear", "view", "select", "cat"]),
    (dead, ["neg"]),
]


@pytest.mark.parametrize(("build", "expected"), CASES)
def test_what_does_nothing_goes(build: Callable[[Hand, Any], Any], expected: list[str]) -> None:
    x = torch.randn(4, 5, 6)
    x[0, 0, 0] = -0.0
    h = Hand(x)
    gm = h.done(build(h, h.inputs[0]))
    agree(gm, simplify, [x])
    assert targets(gm) == expected


def test_equal_results_that_are_both_returned_stay_two() -> None:
    x = torch.randn(4)
    h = Hand(x)
    gm = h.done(h.op(aten.exp.default, h.inputs[0]), h.op(aten.exp.default, h.inputs[0]))
    simplify(gm)
    assert targets(gm) == ["exp", "exp"]


def test_random_numbers_are_drawn_twice() -> None:
    h = Hand(torch.randn(4))
    gm = h.done(h.op(aten.sub.Tensor, h.op(aten.rand.default, [4]), h.op(aten.rand.default, [4])))
    simplify(gm)
    assert targets(gm) == ["rand", "rand", "sub"]


def cache(h: Hand, *, read_later: bool = False) -> tuple[Any, Any]:
    """A decode step: the cache updated at a position, read, and written back."""
    place, new, at = h.inputs
    updated = h.op(aten.index_copy.default, place, 1, at, new)
    read = h.op(aten.sum.default, h.op(aten.mul.Tensor, place if read_later else updated, 2.0))
    h.op(aten.copy_.default, place, updated)
    return updated, read


def cache_inputs() -> list[torch.Tensor]:
    return [torch.randn(2, 8, 4), torch.randn(2, 1, 4), torch.tensor([3])]


def test_an_update_that_ends_in_its_input_is_marked() -> None:
    inputs = cache_inputs()
    h = Hand(*inputs)
    updated, read = cache(h)
    gm = h.done(read)
    assert agree(gm, reinplace, inputs) == 1
    assert updated.meta["reinplace"] == "x0"


def test_an_update_whose_old_contents_are_read_later_is_not() -> None:
    inputs = cache_inputs()
    h = Hand(*inputs)
    updated, read = cache(h, read_later=True)
    gm = h.done(read)
    assert agree(gm, reinplace, inputs) == 0
    assert "reinplace" not in updated.meta
    (reason,) = (n.meta["refused"]["reinplace"] for n in gm.graph.nodes if "refused" in n.meta)
    assert reason == "the old contents are read after the update"


def test_a_chain_of_updates_is_marked_whole() -> None:
    inputs = cache_inputs()
    h = Hand(*inputs)
    place, new, at = h.inputs
    first = h.op(aten.index_copy.default, place, 1, at, new)
    second = h.op(aten.select_scatter.default, first, h.op(aten.select.int, new, 1, 0), 1, 5)
    h.op(aten.copy_.default, place, second)
    gm = h.done(h.op(aten.neg.default, second))
    assert agree(gm, reinplace, inputs) == 2
    assert {first.meta["reinplace"], second.meta["reinplace"]} == {"x0"}


def test_simplify_keeps_the_write_back() -> None:
    inputs = cache_inputs()
    h = Hand(*inputs)
    gm = h.done(cache(h)[1])
    agree(gm, simplify, inputs)
    assert targets(gm).count("copy_") == 1
