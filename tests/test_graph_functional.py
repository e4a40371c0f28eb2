"""In-place operators become functional; what is written into inputs is written once, at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from graph_forms import Hand, agree, targets
from torch_aio.graph.normalise import normalise

aten = torch.ops.aten


def fresh(h: Hand) -> list[Any]:
    y = h.op(aten.mul.Tensor, h.inputs[0], 2.0)
    z = h.op(aten.relu_.default, y)
    return [h.op(aten.add.Tensor, y, z)]


def through_select(h: Hand) -> list[Any]:
    y = h.op(aten.mul.Tensor, h.inputs[0], 2.0)
    row = h.op(aten.select.int, y, 0, 1)
    h.op(aten.add_.Tensor, row, 10.0)
    return [h.op(aten.neg.default, y), h.op(aten.neg.default, row)]


def through_slice_of_transpose(h: Hand) -> list[Any]:
    y = h.op(aten.mul.Tensor, h.inputs[0], 2.0)
    part = h.op(aten.slice.Tensor, h.op(aten.transpose.int, y, 0, 1), 0, 1, 3)
    h.op(aten.copy_.default, part, h.op(aten.exp.default, part))
    return [h.op(aten.neg.default, y)]


def into_input(h: Hand) -> list[Any]:
    x = h.inputs[0]
    before = h.op(aten.neg.default, x)
    h.op(aten.add_.Tensor, x, 1.0)
    return [before, h.op(aten.neg.default, x)]


def earlier_view(h: Hand) -> list[Any]:
    y = h.op(aten.mul.Tensor, h.inputs[0], 2.0)
    flat = h.op(aten.view.default, y, [-1])
    h.op(aten.relu_.default, y)
    h.op(aten.mul_.Tensor, flat, 3.0)
    return [h.op(aten.neg.default, flat), h.op(aten.neg.default, y)]


def narrow_dtype(h: Hand) -> list[Any]:
    y = h.op(aten._to_copy.default, h.inputs[0], dtype=torch.float16)
    h.op(aten.add_.Tensor, y, h.inputs[0])
    return [h.op(aten.neg.default, y)]


CASES: list[tuple[Callable[[Hand], list[Any]], list[str]]] = [
    (fresh, ["mul", "relu", "add"]),
    (through_select, []),
    (through_slice_of_transpose, []),
    (into_input, ["neg", "add", "neg", "copy_"]),
    (earlier_view, []),
    (narrow_dtype, []),
]


@pytest.mark.parametrize(("build", "expected"), CASES, ids=lambda c: getattr(c, "__name__", ""))
def test_writes_become_values(build: Callable[[Hand], list[Any]], expected: list[str]) -> None:
    x = torch.randn(4, 6)
    h = Hand(x)
    gm = h.done(*build(h))
    assert agree(gm, normalise, [x]) > 0
    assert not any(name.endswith("_") and name != "copy_" for name in targets(gm))
    if expected:
        assert targets(gm) == expected


def test_a_write_through_a_view_without_inverse_stays_and_says_so() -> None:
    x = torch.randn(4, 4)
    h = Hand(x)
    y = h.op(aten.mul.Tensor, h.inputs[0], 2.0)
    h.op(aten.add_.Tensor, h.op(aten.diagonal.default, y), 1.0)
    gm = h.done(h.op(aten.neg.default, y))
    agree(gm, normalise, [x])
    (reason,) = (n.meta["refused"]["normalise"] for n in gm.graph.nodes if "refused" in n.meta)
    assert reason == "writes through aten.diagonal.default, which has no inverse"
