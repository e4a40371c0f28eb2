"""The clock of a compile, its line in the log, and garbage collection while it runs."""

from __future__ import annotations

import gc
import re
import time

import pytest
import torch
from torch import nn

import torch_aio
from torch_aio.compiling import clock, stage, uncollected

LINE = re.compile(
    r"\((torch\.compile|export|TorchScript)\): capture [\d.]+ s; compiled in ([\d.]+) s: (.*) "
    r"\((\d+) compiled, (\d+) from the cache\)"
)


def test_stages_are_exclusive():
    """A stage's time is not counted to the one around it; equal names add up."""
    with clock() as spent, stage("outer"):
        for _ in range(2):
            with stage("inner"):
                time.sleep(0.02)
    assert spent["inner"] >= 0.04
    assert spent["outer"] < 0.02


def test_no_clock_no_count():
    """Outside of a clock stages cost and count nothing; a clock inside another is its own."""
    with stage("lonely"), clock() as outer:
        with clock() as inner, stage("inside"):
            pass
        with stage("after"):
            pass
    assert set(inner) == {"inside"}
    assert set(outer) == {"after"}


def test_collection_is_paused():
    """Also where a compile fails, and not resumed where the program had switched it off."""

    @uncollected()
    def fails():
        raise ValueError(gc.isenabled())

    with pytest.raises(ValueError, match="False"):
        fails()
    assert gc.isenabled()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("door", ["torch.compile", "export", "TorchScript"])
def test_a_line_a_compile(door, monkeypatch, caplog):
    """AIO_DEBUG_MODE=3 prints what is ours of a first call, stage by stage."""
    monkeypatch.setenv("AIO_DEBUG_MODE", "3")
    model, x = nn.Sequential(nn.Linear(8, 8), nn.Tanh()).eval(), torch.randn(2, 8)
    run = {
        "torch.compile": lambda: torch.compile(model, backend="aio"),
        "export": lambda: torch_aio.compile(model, (x,)),
        "TorchScript": lambda: torch.jit.freeze(torch.jit.trace(model, x)),
    }[door]()
    for _ in range(2):
        run(x)
    found = [m for record in caplog.records if (m := LINE.search(record.getMessage()))]
    assert [m[1] for m in found] == [door]
    stages = dict(part.split() for part in found[0][3].split(", "))
    assert {"passes", "lowering", "packing"} <= set(stages)
    assert sum(map(float, stages.values())) == pytest.approx(float(found[0][2]), abs=0.005)
