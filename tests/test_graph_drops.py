"""Passes ``drop_copies`` and ``drop_masks``."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from graph_forms import Hand, agree, targets
from torch_aio.graph.drop_copies import drop_copies
from torch_aio.graph.drop_masks import drop_masks

aten = torch.ops.aten


def dense(h: Hand, x: Any) -> Any:
    return h.op(aten.clone.default, x, memory_format=torch.contiguous_format)


def test_a_copy_before_a_product_goes() -> None:
    x = torch.randn(4, 5, 8)
    h = Hand(x)
    w = h.constant(torch.randn(3, 8))
    turned = dense(h, h.op(aten.transpose.int, h.inputs[0], 0, 1))
    gm = h.done(h.op(aten.linear.default, h.op(aten.select.int, turned, 0, 2), w))
    assert agree(gm, drop_copies, [x]) == 1
    assert targets(gm) == ["transpose", "select", "linear"]


def swapped(h: Hand) -> Any:
    return h.op(aten.exp.default, dense(h, h.op(aten.transpose.int, h.inputs[0], 1, 2)))


def returned(h: Hand) -> Any:
    return dense(h, h.op(aten.transpose.int, h.inputs[0], 0, 1))


def pointwise(h: Hand) -> Any:
    return h.op(aten.exp.default, dense(h, h.op(aten.transpose.int, h.inputs[0], 0, 1)))


def flattened(h: Hand) -> Any:
    turned = dense(h, h.op(aten.transpose.int, h.inputs[0], 0, 1))
    return h.op(aten.exp.default, h.op(aten.view.default, turned, [-1]))


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (swapped, "its innermost elements are not neighbours in memory"),
        (returned, "the caller sees how it lies"),
        (pointwise, "the result of aten.exp.default would lie otherwise"),
        (flattened, "aten.view.default needs it in one piece"),
    ],
)
def test_a_copy_that_matters_stays_and_says_why(build: Any, reason: str) -> None:
    x = torch.randn(4, 5, 8)
    h = Hand(x)
    gm = h.done(build(h))
    assert agree(gm, drop_copies, [x]) == 0
    assert [n.meta["refused"]["drop_copies"] for n in gm.graph.nodes if "refused" in n.meta] == [
        reason
    ]


@pytest.mark.parametrize(("limit", "dropped"), [(4, 1), (3, 0)])
def test_a_mask_goes_where_it_hides_nothing(limit: int, dropped: int) -> None:
    x = torch.randn(1, 2, 4, 8)
    h = Hand(x)
    steps = h.op(aten.arange.start_step, 0, 4, 1, dtype=torch.int64)
    mask = h.op(aten.expand.default, h.op(aten.lt.Scalar, steps, limit), [4, 4])
    q = h.op(aten.transpose.int, h.op(aten.transpose.int, h.inputs[0], 1, 2), 1, 2)
    gm = h.done(
        h.op(aten.exp.default, h.op(torch.ops.aio.attention.default, q, q, q, mask, fill=-1.0))
    )
    assert agree(gm, drop_masks, [x]) == dropped


def test_a_mask_that_is_a_weight_stays() -> None:
    """It may be changed after compiling."""
    x = torch.randn(1, 2, 4, 8)
    h = Hand(x)
    q, mask = h.inputs[0], h.constant(torch.zeros(4, 4))
    gm = h.done(h.op(torch.ops.aio.attention.default, q, q, q, mask))
    assert agree(gm, drop_masks, [x]) == 0
