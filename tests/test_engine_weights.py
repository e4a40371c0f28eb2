"""Weights changed after compiling are honoured: every way in which a change can be seen."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

import torch_aio
from torch_aio.engine.compiled import observed
from torch_aio.engine.packs import STORE


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(24, 24)
        self.norm = nn.BatchNorm1d(24)
        self.scale = nn.Parameter(torch.randn(24))
        self.register_buffer("shift", torch.randn(24))

    def forward(self, x):
        y = torch.relu(self.norm(self.first(x)) * self.scale + self.shift)
        return y + torch.fft.fft(y).real  # a node for PyTorch: two networks, if any


def other_state(model):
    return {
        k: torch.rand_like(v) + 0.5 if v.is_floating_point() else v
        for k, v in model.state_dict().items()
    }


def load(model):
    model.load_state_dict(other_state(model))


def assign(model):
    model.load_state_dict(other_state(model), assign=True)


def step(model):
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimiser.step()
    optimiser.zero_grad()


def inference_mul(model):
    with torch.inference_mode():
        model.first.weight.mul_(1.5)


def detached_mul(model):
    model.scale.detach().mul_(-1.5)


def buffer_add(model):
    model.shift.add_(1)


def running_mean(model):
    model.norm.running_mean.add_(1)


def replace_parameter(model):
    model.scale = nn.Parameter(torch.randn(24))


def replace_module(model):
    model.first = nn.Linear(24, 24)


def data(model):
    model.scale.data = torch.randn(24)


def to_and_back(model):
    model.double().float()
    with torch.no_grad():
        model.scale.add_(1)


def share(model):
    model.share_memory()
    with torch.no_grad():
        model.scale.add_(1)


IN_PLACE = (load, step, inference_mul, detached_mul, buffer_add)
CHANGES = (*IN_PLACE, running_mean, assign, replace_parameter, replace_module)
CHANGES += (data, to_and_back, share)


def exported(model, x):
    return torch_aio.compile(model, (x,))


def dynamo(model, x):
    return torch.compile(model, backend="aio")


@pytest.fixture(autouse=True)
def _reset():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def model():
    return Model().eval()


@pytest.mark.parametrize("door", [exported, dynamo])
@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_changed_weights(door, change, model):
    x = torch.randn(5, 24)
    with torch.no_grad():
        compiled = door(model, x)
        torch.testing.assert_close(compiled(x), model(x))
        before = model(x)
    change(model)
    with torch.no_grad():
        expected = model(x)
        assert not torch.equal(expected, before)
        torch.testing.assert_close(compiled(x), expected)
        torch.testing.assert_close(compiled(x), expected)


@pytest.mark.parametrize("change", [*IN_PLACE], ids=lambda f: f.__name__)
def test_a_frozen_module_shares_its_source_modules_memory(change, model):
    """What stock PyTorch shows after the change is what we show."""
    x = torch.randn(5, 24)
    stock = torch.jit.freeze(torch.jit.trace(model, x), optimize_numerics=False)
    ours = torch.jit.freeze(torch.jit.trace(model, x), optimize_numerics=False)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), stock(x))
        change(model)
        torch._C._aio_force_disable()
        try:
            expected = stock(x)
        finally:
            torch._C._aio_force_enable()
        torch.testing.assert_close(ours(x), expected)


@pytest.mark.parametrize("door", [exported, dynamo])
def test_refresh_after_a_change_that_cannot_be_seen(door, model):
    x = torch.randn(5, 24)
    with torch.no_grad():
        compiled = door(model, x)
        compiled(x)
        model.first.weight.data.mul_(2)
        model.scale.numpy()[:] = 3
        torch_aio.refresh()
        torch.testing.assert_close(compiled(x), model(x))


def test_weights_stay_where_this_pytorch_cannot_release_them(model, notices, monkeypatch):
    """As PyTorch before 2.14: one notice, and weights are live as ever."""
    monkeypatch.setattr("torch_aio.engine.released.take_storage", None)
    x = torch.randn(5, 24)
    with torch.no_grad():
        compiled = torch_aio.compile(model, (x,), options={"release_weights": True})
        torch.testing.assert_close(compiled(x), model(x))
        model.scale.mul_(2)
        torch.testing.assert_close(compiled(x), model(x))
    assert sum("cannot release weights" in text for text in notices.messages) == 1


def test_compiling_again_reads_the_weights_again(model):
    """Also those of a change that cannot be seen, while the first pack is in use."""
    x = torch.randn(5, 24)
    with torch.no_grad():
        first = torch_aio.compile(model, (x,))
        first(x)
        model.first.weight.data.mul_(2)
        torch.testing.assert_close(torch_aio.compile(model, (x,))(x), model(x))


@pytest.mark.parametrize("door", [exported, dynamo])
@pytest.mark.parametrize(
    "replacement",
    [torch.randn(24, 24).t(), torch.randn(24, 24, dtype=torch.float64), torch.randn(1, 24)],
    ids=["strides", "dtype", "shape"],
)
def test_a_weight_of_another_kind(door, replacement, model, notices):
    """PyTorch's answer or PyTorch's error, and a notice; never garbage."""
    x = torch.randn(5, 24)

    def answer(f):
        try:
            return f(x)
        except RuntimeError:
            return RuntimeError

    if door is dynamo and replacement.shape != (24, 24):
        pytest.skip("Dynamo's own error")
    with torch.no_grad():
        compiled = door(model, x)
        compiled(x)
        model.first.weight = nn.Parameter(replacement)
        expected = answer(model)
        for _ in range(2):
            got = answer(compiled)
            assert got is expected or torch.testing.assert_close(got, expected) is None
        if door is exported:  # Dynamo compiles again
            assert sum("while a weight" in message for message in notices.messages) == 1
        model.first.weight = nn.Parameter(torch.randn(24, 24))
        torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize("door", [exported, dynamo])
def test_the_same_memory_seen_otherwise(door, model, notices):
    """``p.data = p.data.t()``: neither the version nor the memory tells."""
    x = torch.randn(5, 24)
    with torch.no_grad():
        compiled = door(model, x)
        compiled(x)
        model.first.weight.data = model.first.weight.data.t()
        torch.testing.assert_close(compiled(x), model(x))
        model.first.weight.data = model.first.weight.data.t()
        torch.testing.assert_close(compiled(x), model(x))
    assert any("while a weight" in message for message in notices.messages)


def test_an_unknown_layout_is_looked_at_from_python(model, monkeypatch):
    monkeypatch.setattr("torch_aio.runtime.watch.tensor_layout", lambda: None)
    x = torch.randn(5, 24)
    with torch.no_grad():
        compiled = torch_aio.compile(model, (x,))
        compiled(x)
        model.scale.mul_(2)
        torch.testing.assert_close(compiled(x), model(x))


def test_a_compiled_module_is_let_go():
    """The graph that Dynamo keeps for the code does not keep its weights or their packs."""
    gc.collect()
    packs = len(STORE)
    model, x = Model().eval(), torch.randn(5, 24)
    with torch.no_grad():
        torch.compile(model, backend="aio")(x)
    weight = weakref.ref(model.first.weight)
    assert len(STORE) > packs
    del model
    gc.collect()
    assert weight() is None
    assert len(STORE) == packs


def test_modules_that_share_code_keep_their_own_weights():
    """torch.compile runs equal layers by one graph: each call brings other weights."""
    layers = [nn.Linear(24, 24).eval() for _ in range(6)]
    x = torch.randn(5, 24)
    with torch.no_grad():
        for layer in layers:
            layer.compile(backend="aio")
        for _ in range(3):
            for layer in layers:
                expected = nn.functional.linear(x, layer.weight, layer.bias)
                torch.testing.assert_close(layer(x), expected)
        made = STORE.made
        for layer in layers:
            layer(x)
        assert STORE.made == made, "a known layer was packed again"


def test_another_variant_packs_nothing(model):
    """Variants of one graph, for other answers about sizes, share one copy of the weights."""
    x = torch.randn(5, 24)
    with torch.no_grad(), observed() as graphs:
        compiled = torch_aio.compile(model, (x,), dynamic_shapes={"x": {0: torch.export.Dim.AUTO}})
        compiled(x)
        (graph,) = graphs
        (first,) = graph.variants
        made, packs = STORE.made, len(STORE)
        first.guards.facts[("==", 0, 0)] = False  # as if it did not hold for the next size
        y = torch.randn(7, 24)
        torch.testing.assert_close(compiled(y), model(y))
    assert len(graph.variants) == 2
    assert (STORE.made, len(STORE)) == (made, packs)


def test_two_compiles_share_their_packs(model):
    x = torch.randn(5, 24)
    with torch.no_grad():
        first = torch_aio.compile(model, (x,))
        first(x)
        made = STORE.made
        second = torch_aio.compile(model, (x,))
        torch.testing.assert_close(second(x), first(x))
    assert STORE.made == made


def test_replaced_weights_and_their_packs_are_let_go(model):
    x = torch.randn(5, 24)
    with torch.no_grad():
        compiled = torch_aio.compile(model, (x,))
        compiled(x)
        model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
        compiled(x)
        old = weakref.ref(model.first.weight)
        gc.collect()
        packs = len(STORE)
        for _ in range(5):
            model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
            torch.testing.assert_close(compiled(x), model(x))
        gc.collect()
    assert old() is None
    assert len(STORE) <= packs


def test_inference_tensors_as_weights():
    with torch.inference_mode():
        model = Model().eval()
        x = torch.randn(5, 24)
        compiled = torch_aio.compile(model, (x,))
        torch.testing.assert_close(compiled(x), model(x))
        model.scale = nn.Parameter(torch.randn(24), requires_grad=False)
        torch.testing.assert_close(compiled(x), model(x))
