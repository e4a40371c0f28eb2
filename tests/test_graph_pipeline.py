"""The pipeline: every pass is named, counts, verifies, prints, and can be stopped by fuel."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from graph_forms import Hand, agree, exported, targets
from torch_aio.graph import pipeline
from torch_aio.graph.rewrite import aten

WIDTH = 8


class Block(nn.Module):
    """Something for every pass: convolution and norm, attention spelled out, gelu, copies."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, WIDTH, 4, 4), nn.BatchNorm2d(WIDTH), nn.ReLU(True))
        self.packed = nn.Linear(WIDTH, 3 * WIDTH)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem(image).flatten(2).transpose(1, 2))
        q, k, v = self.packed(x).unflatten(-1, (3, 2, WIDTH // 2)).permute(2, 0, 3, 1, 4)
        x = ((q @ k.mT * 0.5).softmax(-1) @ v).transpose(1, 2).contiguous().flatten(2)
        return x * 0.5 * (1 + torch.erf(x / 2**0.5))


def block(*, decompose: bool) -> tuple[GraphModule, torch.Tensor]:
    torch.manual_seed(0)
    image = torch.randn(2, 3, 16, 16)
    return exported(Block(), image, decompose=decompose), image


@pytest.mark.parametrize("decompose", [True, False])
def test_all_passes_together(decompose: bool) -> None:
    gm, image = block(decompose=decompose)
    report = agree(gm, lambda g: pipeline.run(g, passes=pipeline.REWRITES), [image])
    assert set(report.fired) == {step.__name__ for step in pipeline.REWRITES}
    assert {"conv2d", "relu", "linear", "layer_norm", "aio::attention", "gelu"} <= set(targets(gm))
    assert not {"clone", "softmax", "erf", "batch_norm"} & set(targets(gm))


@pytest.mark.parametrize("decompose", [True, False])
def test_the_graph_runs_after_any_number_of_rewrites(decompose: bool) -> None:
    """So that a wrong answer is found by bisection."""
    gm, image = block(decompose=decompose)
    total = pipeline.run(gm, passes=pipeline.REWRITES).total
    for fuel in range(0, total, 3):
        gm, image = block(decompose=decompose)
        agree(gm, lambda g, f=fuel: pipeline.run(g, f, pipeline.REWRITES), [image])


def test_without_fuel_nothing_is_rewritten() -> None:
    gm, _ = block(decompose=True)
    before = targets(gm)
    pipeline.run(gm, 0, pipeline.REWRITES)
    kept = [name for name in before if not name.startswith("_assert")]
    assert targets(gm, constants=True) == kept


def test_every_pass_that_fired_prints_the_graph(caplog: Any) -> None:
    h = Hand(torch.randn(4))
    gm = h.done(h.op(aten.square.default, h.inputs[0]))
    logger = logging.getLogger("torch_aio")
    level, propagate = logger.level, logger.propagate
    logger.propagate = True
    try:
        with caplog.at_level(5, logger="torch_aio"):
            pipeline.run(gm, passes=pipeline.REWRITES)
    finally:
        logger.setLevel(level)
        logger.propagate = propagate
    assert any("graph after normalise" in r.getMessage() for r in caplog.records)


def test_a_malformed_graph_names_the_pass() -> None:
    def spoil(gm: GraphModule) -> int:
        for node in gm.graph.nodes:
            node.meta.pop("spec", None)
        return 1

    h = Hand(torch.randn(4))
    gm = h.done(h.op(aten.relu.default, h.inputs[0]))
    with pytest.raises(RuntimeError, match=r"after spoil: .* has no spec"):
        pipeline.run(gm, passes=(spoil,))
