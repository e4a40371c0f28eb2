"""``torch_aio.verify`` and the filters' names: what is converted, how far off, what to leave."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import torch_aio
from torch_aio import cli
from torch_aio.engine.compiled import recorded
from torch_aio.tools.explain import explanation
from torch_aio.tools.verify import Layer, propose


@pytest.fixture(autouse=True)
def _strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIO_STRICT", "1")
    torch.compiler.reset()


class Heads(nn.Module):
    """Two merged projections, one whose weights have an outlier, one more."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(40, 24), nn.Linear(40, 24)
        self.odd, self.last = nn.Linear(24, 24), nn.Linear(24, 12)
        with torch.no_grad():
            self.odd.weight[:, 0] = 50.0

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.query(x), self.key(x)
        x = q @ k.t() @ k
        x[:, 0] = 0.01
        return self.last(self.odd(x).sigmoid())


def test_layers_are_sorted_and_the_worst_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """An outlier in the weights is found; without its layer the output is nearer."""
    model, x = Heads().eval(), torch.randn(9, 40)
    for run in (model, torch.jit.freeze(torch.jit.trace(model, x))):
        found = torch_aio.verify(run, x, "Linear")
        assert str(found) in capsys.readouterr().out
        names = [layer.names for layer in found.layers]
        assert names[0] == ("Linear:odd",)
        assert ("Linear:query", "Linear:key") in names
        errors = [layer.error for layer in found.layers]
        assert errors == sorted(errors, reverse=True)
        assert all(0 < error < 0.02 for error in errors[1:])
        assert found.proposed is not None
        assert found.proposed < found.output
        with torch.no_grad():
            left = torch.compile(model, backend="aio", options={"int8_filter": found.proposal})
            assert "Linear:odd" not in explanation(left, x).int8


def test_nothing_is_proposed_where_it_cannot_be_said() -> None:
    """One layer alone, and layers without paths."""
    assert propose(".*", [Layer(("Linear:a",), 1.0)]) == ""
    assert propose(".*", [Layer(("Linear",), 1.0), Layer(("Linear",), 0.1)]) == ""
    layers = [Layer(("Linear:a.b", "Linear:c"), 1.0), Layer(("Matmul:d",), 0.1)]
    assert propose("Linear", layers) == r"(?!\w+:(?:a\.b|c)$)(?:Linear)"


def test_filters_see_names_and_explain_shows_who_was_converted() -> None:
    """The kernel, the count, and why a matching operator stays in fp32."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.few, self.many = nn.Linear(16, 8), nn.Linear((1 << 16) + 8, 4)

        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return self.few(x), self.many(y)

    run = torch.compile(Both().eval(), backend="aio", options={"int8_filter": ".*"})
    found = explanation(run, torch.randn(6, 16), torch.randn(6, (1 << 16) + 8))
    assert found.names == ("Linear:few", "Linear:many")
    assert found.int8 == ("Linear:few",)
    assert "1 operators in int8" in str(found)
    assert "not in int8: sums of more than 65536 terms do not fit 32 bits" in str(found)


def test_the_command_lists_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`aio explain FILE.py:FUNCTION --names`; a target that is none is one sentence."""
    source = tmp_path / "model.py"
    source.write_text(
        "import torch\n"
        "def make():\n"
        "    return torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU()), torch.ones(5, 8)\n"
    )
    assert cli.main(["explain", f"{source}:make", "--names"]) == 0
    assert capsys.readouterr().out.split() == ["Linear:0", "Relu:1"]
    assert cli.main(["explain", f"{source}:make"]) == 0
    assert "gemm" in capsys.readouterr().out
    for wrong in ("model", f"{source}:other", "no_such_module:make"):
        assert cli.main(["explain", wrong]) == 2
        assert capsys.readouterr().err.startswith("aio: ")


def test_recorded_calls_hold_inputs_as_they_were() -> None:
    """A model that writes into its input is recorded before it does."""
    run = torch.compile(lambda x: x.add_(1), backend="aio")
    with recorded() as calls, torch.no_grad():
        run(torch.zeros(4))
    ((inputs, weights),) = calls.values()
    assert inputs[0].sum() == 0
    assert not weights
