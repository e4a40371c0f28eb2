"""``release_weights``: the originals' memory goes, answers stay, one error says what cannot be."""

from __future__ import annotations

import copy
import gc
import pickle

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

import torch_aio
from torch_aio.engine.released import MESSAGE, has_storage, take_storage

OPTIONS = {"release_weights": True, "strict": True}


class Model(nn.Module):
    """Packed and folded weights, one that PyTorch reads (fft), one that both do."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 20, 3, padding=1)
        self.norm = nn.BatchNorm2d(20)
        self.head = nn.Linear(20, 10)
        self.scale = nn.Parameter(torch.randn(10))
        self.turn = nn.Parameter(torch.randn(10))

    def forward(self, x):
        y = self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))
        return torch.fft.fft(y * self.scale * self.turn).real * self.scale


def by_compile(model, x):
    del x
    return torch.compile(model, backend="aio", options=OPTIONS, dynamic=True)


def by_export(model, x):
    batch = torch.export.Dim("batch")
    return torch_aio.compile(model, (x,), dynamic_shapes=({0: batch},), options=OPTIONS)


def by_freeze(model, x):
    return torch.jit.freeze(torch.jit.trace(model, x))


DOORS = (by_compile, by_export, by_freeze)
pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning"
    ),
    pytest.mark.skipif(take_storage is None, reason="this PyTorch cannot release weights"),
]


@pytest.fixture(params=DOORS, ids=lambda door: door.__name__)
def door(request, monkeypatch):
    if request.param is by_freeze:
        monkeypatch.setenv("AIO_RELEASE_WEIGHTS", "1")
    return request.param


@pytest.fixture
def model():
    return Model().eval()


@pytest.fixture
def x():
    return torch.randn(2, 3, 8, 8)


@torch.no_grad()
def test_answers_stay_and_originals_go(door, model, x):
    """Repeated calls and another size are right, though no weight has memory any more."""
    other = torch.randn(5, 3, 8, 8)
    expected, expected_other = model(x), model(other)
    run = door(model, x)
    for _ in range(3):
        torch.testing.assert_close(run(x), expected)
    torch.testing.assert_close(run(other), expected_other)
    if door is not by_freeze:  # freezing shares memory with the module's own tensors
        assert not any(has_storage(weight) for weight in model.parameters())


@torch.no_grad()
def test_memory_is_free(x):
    """Nothing of ours holds the memory of a packed weight."""
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32)).eval()
    held = [StorageWeakRef(layer.weight.untyped_storage()) for layer in model]
    run = torch.compile(model, backend="aio", options=OPTIONS)
    run(torch.randn(4, 32))
    gc.collect()
    assert all(ref.expired() for ref in held)


@torch.no_grad()
@pytest.mark.parametrize(
    "use",
    [
        lambda model, x: model(x),
        lambda model, _: model.head.weight + 1,
        lambda model, _: copy.deepcopy(model),
        lambda model, _: pickle.dumps(model.state_dict()["head.weight"]),
        lambda model, _: model.load_state_dict(Model().state_dict()),
        lambda model, _: model.double(),
    ],
    ids=["eager", "read", "copy", "save", "load", "convert"],
)
def test_what_needs_originals_says_so(model, x, use):
    """PyTorch's own error carries our sentence; names and shapes can still be asked for."""
    by_compile(model, x)(x)
    with pytest.raises(RuntimeError, match="release_weights"):
        use(model, x)
    assert model.state_dict()["head.weight"].shape == (10, 20)


@torch.no_grad()
def test_the_engine_switched_off_needs_originals(model, x, monkeypatch):
    """Eager's own read of a released weight raises PyTorch's error with our sentence."""
    run = by_export(model, x)
    run(x)
    monkeypatch.setattr("torch_aio.switch.on", False)
    with pytest.raises(RuntimeError, match="release_weights"):
        run(x)


@torch.no_grad()
def test_refresh_refuses(model, x):
    """Refreshing packs what it can, then says which graph it could not."""
    other = nn.Linear(4, 4)
    live = torch.compile(other, backend="aio")
    inputs = torch.randn(2, 4)
    live(inputs)
    run = by_compile(model, x)
    expected = run(x)
    other.weight.data.zero_()
    with pytest.raises(torch_aio.ReleasedError, match="release_weights"):
        torch_aio.refresh()
    torch.testing.assert_close(live(inputs), other(inputs))
    torch.testing.assert_close(run(x), expected)


@torch.no_grad()
def test_new_data_revives(door, model, x):
    """A state dict that is assigned is packed, and released in its turn."""
    if door is by_freeze:
        pytest.skip("a frozen module has no parameters")
    run = door(model, x)
    run(x)
    fresh = Model().eval()
    expected = fresh(x)
    model.load_state_dict(fresh.state_dict(), assign=True)
    torch.testing.assert_close(run(x), expected)
    assert not has_storage(model.head.weight)


@torch.no_grad()
def test_data_of_one_weight(model, x):
    """New data is honoured where its pack needs it alone, and refused where others are gone."""
    run = by_compile(model, x)
    run(x)
    model.head.weight.data = torch.zeros(10, 20)
    model.head.bias.data = torch.zeros(10)
    assert not run(x).any()
    for _ in range(2):
        model.conv.weight.data = torch.zeros(20, 3, 3, 3)
        with pytest.raises(torch_aio.ReleasedError, match="release_weights"):
            run(x)


@torch.no_grad()
def test_layers_of_one_graph(x):
    """Equal layers share a graph: each is packed and released at its own first call."""
    del x

    class Stack(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(70))

        def forward(self, x):
            for layer in self.layers:
                x = torch.tanh(torch.compile(layer, backend="aio", options=OPTIONS)(x))
            return x

    model, x = Stack().eval(), torch.randn(3, 16)
    expected = x
    for layer in model.layers:
        expected = torch.tanh(layer(expected))
    for _ in range(2):
        torch.testing.assert_close(model(x), expected)
    assert not any(has_storage(layer.weight) for layer in model.layers)


def test_message_is_one_sentence_of_causes():
    """It names the option and both ways out."""
    assert "release_weights" in MESSAGE
    assert "assign=True" in MESSAGE
