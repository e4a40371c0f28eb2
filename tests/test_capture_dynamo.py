"""The torch.compile door: what it captures gives eager's answers and effects, once."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

import torch_aio.capture.dynamo as door
from capture_doors import Block, Counter, assert_same, compiled, plain_engine
from torch_aio import switch
from torch_aio.capture import aten, compat, form
from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Expr


@pytest.fixture
def captured(monkeypatch):
    """The list of captured graphs; they run in plain PyTorch."""
    seen = []
    monkeypatch.setattr(door, "compile_graph", plain_engine(seen))
    monkeypatch.setenv("AIO_STRICT", "1")
    torch.compiler.reset()
    return seen


def _through_view(x, y):
    x.view(-1)[1:].add_(1)
    return x * 2


def _set_item(x, y):
    x[0] = y[1]
    return x.sum()


def _views_of_one(x, y):
    z = x + y
    return z, z.view(-1), z[0]


def _same_result_twice(x, y):
    z = x + y
    return z, z


def _same_twice(x, y):
    return x @ x.mT, x + x


EFFECTS = {
    "update": lambda x, y: x.add_(1) * 2,
    "update twice": lambda x, y: (x.add_(1), x.mul_(2))[1].relu(),
    "read before update": lambda x, y: (x * 2, x.add_(y))[0],
    "update through a view": _through_view,
    "set an item": _set_item,
    "update both": lambda x, y: (x.add_(y), y.add_(x))[1] * 3,
    "return the input": lambda x, y: x,
    "return the updated input": lambda x, y: x.add_(y),
    "return both, crossed": lambda x, y: (y, x),
    "a view of the input": lambda x, y: x.view(-1),
    "a view of the updated input": lambda x, y: x.copy_(y).view(-1),
    "a view and its input, updated": lambda x, y: (x.mul_(2), x.t(), x),
    "a detached input": lambda x, y: x.detach(),
    "views of one result": _views_of_one,
    "the same result twice": _same_result_twice,
    "the same input twice": _same_twice,
    "fill and out-of-place": lambda x, y: (x.zero_(), x + y)[1],
    "expanded": lambda x, y: x[:1].expand(3, 4),
}


@pytest.mark.parametrize("case", EFFECTS)
@torch.no_grad()
def test_effects_happen_once_and_aliases_stay(captured, case):
    ours = [torch.arange(12.0).view(3, 4), torch.ones(3, 4)]
    theirs = copy.deepcopy(ours)
    function = compiled(EFFECTS[case])
    for _ in range(2):
        answer, expected = function(*ours), EFFECTS[case](*theirs)
        assert_same(answer, expected)
        assert_same(ours, theirs)
        assert _aliases(answer, ours) == _aliases(expected, theirs)


def _aliases(answer, inputs):
    """For each pair of tensors in play: whether it is one object, and whether memory is shared."""
    tensors = [*inputs, *(answer if isinstance(answer, tuple) else (answer,))]
    return [
        (a is b, a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr())
        for a in tensors
        for b in tensors
    ]


@torch.no_grad()
def test_overlapping_inputs_go_through_aots_wrappers(captured):
    def step(a, b):
        a.add_(1)
        return a * b

    function = compiled(step)
    for _ in range(2):
        ours, theirs = torch.arange(8.0), torch.arange(8.0)
        assert_same(function(ours[:6], ours[2:]), step(theirs[:6], theirs[2:]))
        assert_same(ours, theirs)


@torch.no_grad()
def test_the_same_tensor_as_both_arguments(captured):
    ours, theirs = torch.ones(3, 4), torch.ones(3, 4)
    function = compiled(EFFECTS["update both"])
    assert_same(function(ours, ours), EFFECTS["update both"](theirs, theirs))
    assert_same(ours, theirs)


@torch.no_grad()
def test_buffers_and_attributes_count_once(captured):
    ours = Counter()
    theirs = copy.deepcopy(ours)
    function = compiled(ours)
    for _ in range(3):
        x = torch.randn(2)
        assert_same(function(x), theirs(x))
    assert_same([ours.count, ours.plain], [theirs.count, theirs.plain])
    assert not captured[0].live


@torch.no_grad()
def test_the_graph_form(captured):
    """Constants are get_attr with the user's names, nodes know spec, source line and module."""
    model = Block().eval()
    x = torch.randn(3, 8)
    assert_same(compiled(model)(x), model(x))
    (capture,) = captured
    graph = capture.module.graph
    by_op = {op: [n for n in graph.nodes if n.op == op] for op in ("placeholder", "get_attr")}
    assert [n.meta["spec"] for n in by_op["placeholder"]] == [
        TensorSpec((3, 8), torch.float32, (8, 1))
    ]
    names = {n.target: n.meta["name"] for n in by_op["get_attr"]}
    assert sorted(names.values()) == [
        "layers.0.bias",
        "layers.0.weight",
        "norm.bias",
        "norm.weight",
        "scale",
    ]
    assert set(capture.live) == set(names)
    calls = {str(n.target): n for n in graph.nodes if n.op == "call_function"}
    assert set(calls) == {
        "aten.layer_norm.default",
        "aten.linear.default",
        "aten.gelu.default",
        "aten.mul.Tensor",
        "aten.add.Tensor",
    }
    assert calls["aten.linear.default"].meta["path"] == "layers.0"
    assert calls["aten.mul.Tensor"].meta["source"].startswith("capture_doors.py:")
    assert calls["aten.mul.Tensor"].meta["source"].endswith("* self.scale")
    assert all(set(n.meta) <= {"spec", "source", "path", "name"} for n in graph.nodes)
    assert all("spec" in n.meta for n in graph.nodes if n.op != "output")
    assert capture.name.startswith("forward (capture_doors.py:")


def _load(model):
    model.load_state_dict({k: v * 2 for k, v in model.state_dict().items()})


def _assign(model):
    model.load_state_dict({k: v * 2 for k, v in model.state_dict().items()}, assign=True)


def _in_place(model):
    model.layers[0].weight.mul_(3)


def _new_parameter(model):
    model.layers[0].weight = nn.Parameter(torch.randn(8, 8))


def _new_module(model):
    model.layers[0] = nn.Linear(8, 8)


def _data(model):
    model.layers[0].weight.data = torch.randn(8, 8)


def _buffer(model):
    model.scale.add_(1)


@pytest.mark.parametrize(
    "change", [_load, _assign, _in_place, _new_parameter, _new_module, _data, _buffer]
)
@torch.no_grad()
def test_live_names_the_argument_that_carries_each_weight(captured, change):
    model = Block().eval()
    function = compiled(model)
    x = torch.randn(3, 8)
    function(x)
    change(model)
    assert_same(function(x), model(x))


@torch.no_grad()
def test_the_first_graph_is_bound_to_its_weights_and_the_second_takes_any(captured):
    """Layers of one code: two graphs for all; another size of the first is bound as well."""
    layers = [Block().eval() for _ in range(5)]
    functions = [compiled(layer) for layer in layers]
    x = torch.randn(3, 8)
    for layer, function in zip(layers, functions, strict=True):
        assert_same(function(x), layer(x))
    assert [c.bound is not None for c in captured] == [True, False]
    assert [len(c.arguments) for c in captured] == [1, 1]
    torch.compiler.reset()
    captured.clear()
    for n in (3, 4, 5):
        y = torch.randn(n, 8)
        assert_same(functions[0](y), layers[0](y))
    assert [c.bound is not None for c in captured] == [True, True]


@torch.enable_grad()
def test_a_graph_that_may_be_asked_for_gradients_takes_its_weights_as_arguments(captured):
    model, x = Block().eval(), torch.randn(3, 8)
    compiled(model)(x).sum().backward()
    assert model.layers[0].weight.grad is not None
    assert [c.bound for c in captured] == [None]


@pytest.mark.parametrize("dynamic", [None, True, False])
@torch.no_grad()
def test_sizes(captured, dynamic):
    model = Block().eval()
    function = compiled(model, dynamic=dynamic)
    for n in (3, 5, 7, 1, 9):
        x = torch.randn(n, 8)
        assert_same(function(x), model(x))
    symbolic = [c for c in captured if isinstance(_first_size(c), Expr)]
    assert bool(symbolic) == (dynamic is not False)
    for capture in symbolic:
        specs = [n.meta["spec"] for n in capture.module.graph.find_nodes(op="placeholder")]
        assert _first_size(capture) in specs


def _first_size(capture):
    specs = [n.meta["spec"] for n in capture.module.graph.find_nodes(op="placeholder")]
    return next(s.shape[0] for s in specs if isinstance(s, TensorSpec))


@torch.no_grad()
def test_sizes_computed_from_sizes(captured):
    def shuffle(x):
        n = x.shape[0]
        return x.view(n // 2, 2, 4).flip(1).reshape(-1)[: n * 2 + max(n, 6)]

    function = compiled(shuffle, dynamic=True)
    for n in (4, 6, 10):
        x = torch.randn(n, 4)
        assert_same(function(x), shuffle(x))
    assert len(captured) <= 2


@torch.no_grad()
def test_python_floats_stay_inputs(captured):
    def scaled(x, factor):
        return x * factor

    function = compiled(scaled)
    for factor in (1.5, 2.5, 3.5):
        x = torch.randn(3)
        assert_same(function(x, factor), scaled(x, factor))
    targets = {n.target for c in captured for n in c.module.graph.nodes if n.op == "call_function"}
    assert all(t.namespace == "aten" for t in targets)


@torch.no_grad()
def test_graph_breaks_functions_and_bound_methods(captured):
    class Model(Block):
        def run(self, x):
            y = self.layers(x)
            torch._dynamo.graph_break()
            return y.relu() if y.sum() > 0 else y.sigmoid()

    model = Model().eval()
    function = compiled(model.run)
    for _ in range(3):
        x = torch.randn(3, 8)
        assert_same(function(x), model.run(x))
    assert len(captured) >= 2


@torch.no_grad()
def test_constants_made_inside(captured):
    def offset(x):
        return x + torch.tensor([1.0, 2.0]), torch.tensor([3, 4])

    function = compiled(offset)
    first = function(torch.zeros(2))
    first[1].zero_()
    assert_same(function(torch.zeros(2)), offset(torch.zeros(2)))


@torch.no_grad()
def test_autocast_acts_once(captured):
    model = Block().eval()
    x = torch.randn(3, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(compiled(model)(x), model(x))

    def inner(x):
        with torch.autocast("cpu", torch.bfloat16):
            return model.layers[0](x)

    assert_same(compiled(inner)(x), inner(x))


@torch.no_grad()
def test_reset_and_stances(captured):
    model = Block().eval()
    function = compiled(model)
    x = torch.randn(3, 8)
    function(x)
    assert compat.counters["aio"]["compiled"] == 1
    torch.compiler.reset()
    assert compat.counters["aio"]["compiled"] == 0
    function(x)
    assert len(captured) == 2
    for stance in ("force_eager", "eager_on_recompile", "fail_on_recompile"):
        with torch.compiler.set_stance(stance):
            assert_same(function(x), model(x))
    with torch.compiler.set_stance("default", skip_guard_eval_unsafe=True):
        assert_same(function(x), model(x))
    assert len(captured) == 2


@torch.no_grad()
def test_the_switch_runs_plain_pytorch(captured):
    model = Block().eval()
    function = compiled(model)
    x = torch.randn(3, 8)
    function(x)
    captured[0].module.w0 = None  # must not be read while off
    live, captured[0].live = captured[0].live, {"broken": 99}
    switch.disable()
    try:
        assert_same(function(x), model(x))
    finally:
        switch.enable()
        captured[0].live = live
    assert_same(function(x), model(x))


# What is left to eager


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.norm(x))


@pytest.mark.parametrize("part", ["norm", "drop"])
@torch.no_grad()
def test_training_mode_is_eagers(captured, part):
    model = getattr(Dropping(), part).train()
    twin = copy.deepcopy(model)
    function = compiled(model)
    for _ in range(2):
        x = torch.randn(6, 4)
        torch.manual_seed(1)
        answer = function(x)
        torch.manual_seed(1)
        assert_same(answer, twin(x))
    assert_same(model.state_dict(), twin.state_dict())
    assert not captured
    assert compat.counters["aio"]["refused"] == 1


@torch.no_grad()
def test_control_flow_operators_are_eagers(captured):
    def branch(x):
        return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))

    function = compiled(branch)
    for x in (torch.ones(3), -torch.ones(3)):
        assert_same(function(x), branch(x))


@torch.no_grad()
def test_a_failure_of_ours_is_a_warning_and_eagers_answer(captured, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(door, "compile_graph", broken)
    model = Block().eval()
    x = torch.randn(3, 8)
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="no such kernel"):
        compiled(model)(x)
    monkeypatch.setenv("AIO_STRICT", "0")
    torch.compiler.reset()
    assert_same(compiled(model)(x), model(x))
    assert "no such kernel" in caplog.text
    assert compat.counters["aio"]["failed"] == 1


@torch.no_grad()
def test_options(captured):
    model = Block().eval()
    x = torch.randn(3, 8)
    function = compiled(model, options={"modelname": "block"})
    assert_same(function(x), model(x))
    assert_same(torch.compile(model, backend="aio", mode="max-autotune")(x), model(x))
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="modelname"):
        compiled(model, options={"model_name": "block"})(x)


@torch.no_grad()
def test_process_mode_0_returns_the_graph(captured, monkeypatch):
    monkeypatch.setenv("AIO_PROCESS_MODE", "0")
    model = Block().eval()
    x = torch.randn(3, 8)
    assert_same(compiled(model)(x), model(x))
    assert not captured


@pytest.mark.skipif(
    torch.__version__ < "2.10", reason="PyTorch 2.9 sets levels once, before ours is set"
)
def test_torch_logs():
    """TORCH_LOGS="+torch_aio" shows the captured graph."""
    code = (
        "import torch; f = torch.compile(lambda x: x.relu() * 2, backend='aio')\nf(torch.ones(3))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TORCH_LOGS": "+torch_aio"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "aten.relu.default" in run.stdout + run.stderr


# Private names


@pytest.mark.parametrize("name", compat.NAMES)
def test_private_names_exist(name):
    assert getattr(compat, name) is not None


@pytest.mark.parametrize("name", aten.KEPT)
def test_kept_operators_exist_and_can_be_kept(name):
    op = aten.overload(name)
    assert op is not None
    assert compat.is_preservable(op)


def test_names_of_weights():
    names = {
        "L['self']._modules['fc']._parameters['weight']": "fc.weight",
        "L['model'].layers[0].bias": "layers.0.bias",
        "G['net']._buffers['scale']": "scale",
        "encoder.layer.0": "encoder.layer.0",
        "L.weight": "L.weight",
        "L['x']": "",
    }
    assert {source: form.qualified_name(source) for source in names} == names
