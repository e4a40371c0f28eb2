"""Tuning: what the second call finds out, what it leaves alone, what is kept on disk."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import subprocesses
import torch_aio
from accuracy import assert_close
from torch_aio.cache import DiskCache
from torch_aio.engine import against_aten, networks, tuning
from torch_aio.engine.compiled import CompiledGraph, observed
from torch_aio.engine.packs import STORE
from torch_aio.engine.released import take_storage
from torch_aio.errors import ConfigError
from torch_aio.graph import claim
from torch_aio.plan.choice import Question
from torch_aio.plan.winners import Winners

ALWAYS = float("inf")
NEVER = 0.0


@pytest.fixture(autouse=True)
def _tuned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIO_TUNE", "fast")
    monkeypatch.setenv("AIO_STRICT", "1")
    monkeypatch.setattr(tuning, "_preemptions", lambda: 0)  # however busy the machine is
    monkeypatch.setenv("AIO_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def margin(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Decide by decree instead of by time: the second candidate wins ALWAYS or NEVER."""
    return lambda value: monkeypatch.setattr(tuning, "MARGIN", value)


class Net(nn.Module):
    """Twice the same convolution, of channels for which every instruction set has two tiles."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(24, 24, 3, padding=1)
        self.second = nn.Conv2d(24, 24, 3, padding=1)
        self.requires_grad_(requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu()).relu()


def compiled(model: nn.Module, x: Tensor) -> tuple[Any, CompiledGraph]:
    """The compiled model, called once, and its graph."""
    run = torch_aio.compile(model, (x,))
    with observed() as graphs:
        run(x)
    return run, graphs[0]


def chosen(graph: CompiledGraph) -> dict[str, tuple[int, str]]:
    """For each question that was asked: the number of candidates, and what was taken."""
    plans = [item.plan for item in graph.variants[0].networks.values()]
    return {
        c.question.text: (c.question.candidates.index(c.chosen), c.chosen)
        for plan in plans
        for c in plan.choices
        if c.question.is_open
    }


def places(graph: CompiledGraph) -> set[int]:
    return {place for place, _ in chosen(graph).values()}


def test_the_second_call_tunes_once(margin):
    """The first calls take the best guess, later ones the winner, with the same bits."""
    margin(ALWAYS)
    model, x = Net().eval(), torch.randn(1, 24, 12, 12)
    run, graph = compiled(model, x)
    want = model.double()(x.double()), model.float()(x)
    assert len(chosen(graph)) == 1  # equal layers ask once
    assert places(graph) == {0}
    assert_close(run(x), *want)
    tuned = graph.variants[0]
    assert 0 not in places(graph)
    assert not graph._trials
    third = run(x)
    assert_close(third, *want)
    assert torch.equal(run(x), third)
    assert graph.variants == [tuned]


def test_the_best_guess_stays_where_nothing_beats_it(margin):
    margin(NEVER)
    x = torch.randn(1, 24, 12, 12)
    run, graph = compiled(Net().eval(), x)
    before, first = graph.variants[0], run(x)
    assert graph.variants == [before]
    assert torch.equal(run(x), first)


def test_the_next_compile_begins_with_the_winners(margin):
    margin(ALWAYS)
    x = torch.randn(1, 24, 12, 12)
    run, graph = compiled(Net().eval(), x)
    run(x)
    _, again = compiled(Net().eval(), x)
    assert chosen(again) == chosen(graph)
    assert not again._trials


PROCESS = """
import sys
sys.path.insert(0, "tests")
import torch
torch.set_num_threads(2)
from torch_aio.engine import tuning
tuning.MARGIN, tuning._preemptions = MARGIN_, lambda: 0
from test_engine_tuning import Net, chosen, compiled
run, graph = compiled(Net().eval(), torch.randn(1, 24, 12, 12))
print(len(graph._trials), chosen(graph))
run(torch.randn(1, 24, 12, 12))
print(len(graph._trials), chosen(graph))
"""


def test_another_process_begins_with_the_winners():
    first = subprocesses.run(PROCESS.replace("MARGIN_", "1e9"), 300).stdout.splitlines()
    second = subprocesses.run(PROCESS.replace("MARGIN_", "0"), 300).stdout.splitlines()
    assert first[0].startswith("1 ")
    assert second == [first[1]] * 2


def test_damaged_winners_are_found_out_again(margin, tmp_path):
    margin(ALWAYS)
    x = torch.randn(1, 24, 12, 12)
    run, graph = compiled(Net().eval(), x)
    run(x)
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    again, other = compiled(Net().eval(), x)
    assert places(other) == {0}
    again(x)
    assert chosen(other) == chosen(graph)


def test_off_means_off(monkeypatch, margin, tmp_path):
    """Winners are neither read nor found out nor written."""
    margin(ALWAYS)
    x = torch.randn(1, 24, 12, 12)
    run, graph = compiled(Net().eval(), x)
    run(x)
    files = sorted((tmp_path / "cache").iterdir())
    monkeypatch.setenv("AIO_TUNE", "off")
    run, graph = compiled(Net().eval(), x)
    run(x)
    assert places(graph) == {0}
    assert not graph._trials
    assert sorted((tmp_path / "cache").iterdir()) == files


def test_explain_names_the_way(margin, capsys):
    margin(ALWAYS)
    x = torch.randn(1, 24, 12, 12)
    run, _ = compiled(Net().eval(), x)
    run(x)
    ways = [line.way for line in torch_aio.explain(run, x).lines if line.way]
    assert len(ways) == 2
    taken, _, left = ways[0].partition("; not ")
    assert taken
    assert left
    assert ways[0] in capsys.readouterr().out


class Counter(nn.Module):
    """Counts its calls in the caller's tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: Tensor, calls: Tensor) -> Tensor:
        calls.index_fill_(0, torch.tensor([1]), 7.0)
        calls.add_(1)
        return self.net(x) + calls.sum()


def test_inputs_are_updated_once_a_call(margin):
    """Rivals run on copies: what a model writes into its inputs happens once."""
    margin(ALWAYS)
    model = Counter().eval()
    run = torch.compile(model, backend="aio")
    x, calls, other = torch.randn(1, 24, 12, 12), torch.zeros(3), torch.zeros(3)
    kept = x.clone()
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(run(x, calls), model(x, other), rtol=1e-4, atol=1e-4)
            assert torch.equal(calls, other)
    assert torch.equal(x, kept)


def test_copies_keep_strides_gaps_and_overlaps():
    base = torch.arange(60.0)
    for x in (
        base.as_strided((3, 4), (20, 2), 1),
        base[:5].expand(3, 5),
        base.view(3, 4, 5).transpose(0, 2),
        base[:0],
        base[7],
    ):
        copy = tuning._copied(x)
        assert torch.equal(copy, x)
        assert copy.stride() == x.stride()
        assert x.numel() == 0 or copy.data_ptr() != x.data_ptr()


def test_changed_weights_are_honoured_on_the_way(margin):
    """Before the second call, which tunes, and behind it."""
    margin(ALWAYS)
    model, x = Net().eval(), torch.randn(1, 24, 12, 12)
    run, _ = compiled(model, x)
    for factor in (2.0, 3.0, 0.25):
        with torch.no_grad():
            model.first.weight.mul_(factor)
            want = model.double()(x.double()), model.float()(x)
        assert_close(run(x), *want)


def test_packs_of_losers_are_freed(margin):
    """As many packs as before, whoever wins."""
    for value in (NEVER, ALWAYS):
        margin(value)
        model, x = Net().eval(), torch.randn(1, 24, 12, 12)
        before = len(STORE)
        run, _graph = compiled(model, x)
        made = len(STORE) - before
        run(x)
        assert len(STORE) - before == made
        del run, _graph


@pytest.mark.skipif(take_storage is None, reason="this PyTorch cannot release weights")
def test_released_weights_serve_the_tuning_first(margin, monkeypatch):
    """Memory goes back behind the second call: until then rivals are packed from it."""
    margin(ALWAYS)
    monkeypatch.setenv("AIO_RELEASE_WEIGHTS", "1")
    model, x = Net().eval(), torch.randn(1, 24, 12, 12)
    want = model(x)
    run, graph = compiled(model, x)
    run(x)
    assert 0 not in places(graph)
    assert not torch._C._has_storage(model.first.weight)
    torch.testing.assert_close(run(x), want, rtol=1e-4, atol=1e-5)


def test_several_threads_meanwhile(margin):
    """Callers that arrive during the tuning get right answers."""
    margin(ALWAYS)
    model, wrong = Net().eval(), []
    run, graph = compiled(model, torch.randn(1, 24, 12, 12))
    xs = [torch.randn(1, 24, 12, 12) for _ in range(4)]
    with torch.no_grad():
        wants = [model(x) for x in xs]

    def call(x: Tensor, want: Tensor) -> None:
        answers = [run(x) for _ in range(20)]
        wrong.extend(y for y in answers if not torch.allclose(y, want, rtol=1e-4, atol=1e-5))

    threads = [threading.Thread(target=call, args=pair) for pair in zip(xs, wants, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert 0 not in places(graph)


def test_a_rival_that_fails_costs_nothing_but_a_warning(monkeypatch, notices):
    monkeypatch.setenv("AIO_STRICT", "0")
    model, x = Net().eval(), torch.randn(1, 24, 12, 12)
    run, graph = compiled(model, x)

    def fails(*_args: Any) -> None:
        raise RuntimeError("no such tile")

    monkeypatch.setattr(networks, "make", fails)
    first = run(x)
    assert "is not tuned: no such tile" in notices.text
    assert torch.equal(run(x), first)
    assert places(graph) == {0}


def test_a_busy_machine_finds_out_nothing(monkeypatch, margin):
    """Nothing is kept of runs that were disturbed: the next process may try again."""
    margin(ALWAYS)
    taken = iter(range(0, 10**9, 10**6))
    monkeypatch.setattr(tuning, "_preemptions", lambda: next(taken))
    model, x = Net().eval(), torch.randn(1, 24, 12, 12)
    run, graph = compiled(model, x)
    run(x)
    assert places(graph) == {0}
    assert compiled(model, x)[1]._trials


def test_a_foreign_winner_is_none(tmp_path):
    store = DiskCache(tmp_path / "winners")
    question = Question("conv", ("a", "b"), ("c",))
    fast, full = Winners("x", store), Winners("x", store, full=True)
    assert fast(question) == "a"
    assert full.ways(question) == ("a", "b", "c")
    full.keep(question, "c")
    assert Winners("x", store, full=True)(question) == "c"
    assert Winners("x", store)(question) == "a"  # other candidates: another question
    assert Winners("y", store, full=True).find(question) is None
    store.put(fast._key(question), b"z")
    assert Winners("x", store).find(question) is None


class Mixed(nn.Module):
    """A convolution with its activation, and a product: two steps of one network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8, 5)
        self.requires_grad_(requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().permute(0, 2, 3, 1))


@pytest.fixture
def aten(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Decree what ATen takes for the steps whose operators contain a name, and whole graphs."""

    def decree(name: str, ratio: float) -> None:
        measured = against_aten.times

        def times(item: Any, *rest: Any) -> dict[str, int]:
            found = against_aten.groups(item)
            texts = {label: against_aten.question(found[label]).text for label in found}
            spent = measured(item, *rest)
            assert spent.keys() == found.keys()
            assert all(spent.values())
            return {label: 0 if name in text else 10**12 for label, text in texts.items()}

        monkeypatch.setattr(against_aten, "times", times)
        monkeypatch.setattr(tuning, "_ratio", lambda *_: ratio)

    monkeypatch.setenv("AIO_TUNE", "full")
    return decree


def left(graph: CompiledGraph) -> set[str]:
    """The operators that PyTorch runs as it measured faster."""
    verdicts = {str(n.target): n.meta.get("verdict") for n in graph.variants[0].gm.graph.nodes}
    return {target for target, verdict in verdicts.items() if verdict is claim.MEASURED}


def test_a_step_slower_than_aten_goes_back_with_its_group(aten, margin, capsys):
    """Its activation too; the next compile begins so, and explain says why."""
    aten("conv2d", 0.5)
    margin(0.97)
    model, x = Mixed().eval(), torch.randn(2, 3, 9, 9)
    want = model.double()(x.double()), model.float()(x)
    run, graph = compiled(model, x)
    assert left(graph) == set()
    assert_close(run(x), *want)
    assert len(left(graph)) == 2
    assert "aten.relu.default" in left(graph)
    assert not any("linear" in target for target in left(graph))
    assert_close(run(x), *want)
    again, other = compiled(model, x)
    assert left(other) == left(graph)
    assert_close(again(x), *want)
    torch_aio.explain(again, x)
    assert "PyTorch measured faster" in capsys.readouterr().out


def test_a_cut_that_costs_the_gain_is_not_made(aten, margin):
    """Each step alone is slower than ATen, the graph without it is slower still; kept as known."""
    aten("", 1.1)
    margin(0.97)
    model, x = Mixed().eval(), torch.randn(2, 3, 9, 9)
    run, graph = compiled(model, x)
    run(x)
    assert left(graph) == set()
    assert not compiled(model, x)[1]._trials


def test_the_whole_graph_may_go_back(aten, margin):
    aten("", 0.5)
    margin(0.97)
    model, x = Mixed().eval(), torch.randn(2, 3, 9, 9)
    run, graph = compiled(model, x)
    run(x)
    assert not graph.variants[0].networks
    torch.testing.assert_close(run(x), model(x))


def test_the_option_tune_overrides_the_variable(monkeypatch):
    x = torch.randn(1, 24, 12, 12)
    with observed() as graphs:
        for level in ("off", "full"):
            torch_aio.compile(Net().eval(), (x,), options={"tune": level})(x)
    off, full = graphs
    assert not off._trials
    assert [trial._winners.full for trial in full._trials.values()] == [True]
    with pytest.raises(ConfigError, match="tune='maybe': must be off, fast or full"):
        torch_aio.compile(Net().eval(), (x,), options={"tune": "maybe"})


def test_whole_graphs_are_compared_on_copies(aten, margin, monkeypatch):
    """Both sides run; the caller's tensor stays what it was."""
    measured, ratios = tuning._ratio, []
    aten("conv2d", 1.0)
    margin(0.97)
    monkeypatch.setattr(tuning, "_ratio", lambda *a: ratios.append(measured(*a)) or 1.0)
    x = torch.randn(2, 3, 9, 9)
    run, graph = compiled(Mixed().eval(), x)
    kept = x.clone()
    run(x)
    assert len(ratios) == 1
    assert 0 < ratios[0] < float("inf")
    assert torch.equal(x, kept)
    assert left(graph) == set()
