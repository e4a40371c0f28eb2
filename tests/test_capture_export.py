"""The export door: a plain callable that checks its arguments and keeps weights live."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.export import Dim, export

import torch_aio.capture.export as door
from capture_doors import Block, assert_same, plain_engine
from torch_aio import switch
from torch_aio.capture.signature import Leaf, roots_of
from torch_aio.errors import CaptureError, ConfigError, InputError
from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import symbol


@pytest.fixture(autouse=True)
def captured(monkeypatch):
    """The list of captured graphs; they run in plain PyTorch."""
    seen = []
    monkeypatch.setattr(door, "compile_graph", plain_engine(seen))
    monkeypatch.setenv("AIO_STRICT", "1")
    return seen


class Structured(nn.Module):
    """Nested inputs and outputs, a constant argument, updates of an input and of buffers."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("count", torch.zeros(()))
        self.offset = torch.ones(4)

    def forward(self, x, extra, factor=2.5):
        self.count += 1
        y = self.fc(x) * factor + self.offset + torch.tensor([1.0, 2.0, 3.0, 4.0])
        extra["sum"].add_(y.sum(1))
        return {"y": y, "flat": y.view(-1)}, extra["sum"], None, 7


def _structured(n):
    return torch.randn(n, 4), {"sum": torch.randn(n)}


@pytest.fixture(scope="module")
def structured():
    n = Dim("n", min=2, max=64)
    return {"x": {0: n}, "extra": {"sum": {0: n}}, "factor": None}


@torch.no_grad()
def test_structures_keywords_updates_and_sizes(structured):
    ours = Structured().eval()
    theirs = copy.deepcopy(ours)
    run = door.compile(ours, _structured(3), {"factor": 3.0}, dynamic_shapes=structured)
    for n in (3, 5, 9):
        args = _structured(n)
        twins = copy.deepcopy(args)
        answer = run(*args, factor=3.0) if n != 5 else run(extra=args[1], x=args[0], factor=3.0)
        assert_same(answer, theirs(*twins, factor=3.0))
        assert_same(args, twins)
        assert answer[1] is args[1]["sum"]
    assert_same(ours.count, theirs.count)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((torch.ones(3, 5), {"sum": torch.ones(3)}), {}, r"argument x: .*\(3, 5\)"),
        ((torch.ones(3), {"sum": torch.ones(3)}), {}, "argument x: expected 2 dimensions"),
        ((torch.ones(3, 4).double(), {"sum": torch.ones(3)}), {}, "argument x: .*float32.*float64"),
        (
            (torch.ones(3, 4), {"sum": torch.ones(4)}),
            {},
            r"argument extra\['sum'\]: .*3 as in x",
        ),
        ((torch.ones(3, 4), {"total": torch.ones(4)}), {}, "argument 'extra': expected the struct"),
        ((torch.ones(3, 4), torch.ones(4)), {}, "argument 'extra': expected the structure"),
        ((torch.ones(3, 4, device="meta"), {"sum": torch.ones(3)}), {}, "argument x: .*CPU"),
        (([1.0], {"sum": torch.ones(3)}), {}, "argument 'x': expected the structure"),
        ((1.0, {"sum": torch.ones(3)}), {}, "argument x: expected a torch.Tensor, got float"),
        (_structured(65), {}, "size 65 of dimension 0 is not within 2 to 64"),
        (_structured(1), {}, "size 1 of dimension 0 is not within 2 to 64"),
        (_structured(3), {"factor": 4.0}, "argument factor: expected the constant 3.0"),
        (_structured(3), {"scale": 4.0}, "unexpected argument 'scale'; the arguments are: x, ext"),
        (_structured(3), {"x": 4.0}, "argument 'x' is given twice"),
        (_structured(3)[:1], {}, "missing argument 'extra'"),
        ((*_structured(3), 3.0, 4.0), {}, "at most 3 arguments, got 4"),
    ],
)
def test_one_clear_error(structured, args, kwargs, message):
    model = Structured().eval()
    run = door.compile(model, _structured(3), {"factor": 3.0}, dynamic_shapes=structured)
    with pytest.raises(InputError, match=message):
        run(*args, **({"factor": 3.0} if len(args) < 3 else {}) | kwargs)
    assert model.count == 0


@torch.no_grad()
def test_static_sizes_are_checked():
    model = Block().eval()
    run = door.compile(model, torch.randn(3, 8))
    x = torch.randn(3, 8)
    assert_same(run(x), model(x))
    assert_same(run(x=x), model(x))
    with pytest.raises(InputError, match=r"argument x: expected the shape \(3, 8\), got \(4, 8\)"):
        run(torch.randn(4, 8))


@torch.no_grad()
def test_programs_and_their_conditions():
    """Conditions that the program inferred hold for sizes it has not seen."""

    class Pairs(nn.Module):
        def forward(self, x):
            return x.reshape(-1, 2, 4).sum(1)

    model = Pairs().eval()
    program = export(model, (torch.randn(6, 4),), dynamic_shapes=({0: Dim.AUTO},))
    run = door.compile(program)
    for n in (6, 8, 10):
        x = torch.randn(n, 4)
        assert_same(run(x), model(x))
    with pytest.raises(InputError):
        run(torch.randn(7, 4))


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ((), r"do not fit Linear.forward: missing a required argument: 'input'"),
        ((torch.randn(2, 4), 3), "too many positional arguments"),
    ],
)
def test_examples_that_are_no_arguments_of_the_model(examples, message):
    with pytest.raises(InputError, match=message):
        door.compile(nn.Linear(4, 4), examples)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # PyTorch 2.13 about itself
@torch.no_grad()
def test_every_stage_of_a_program():
    model = Structured().eval()
    program = export(model, _structured(3), {"factor": 3.0})
    for stage in (program, program.run_decompositions({}), program.run_decompositions()):
        run = door.compile(stage)
        theirs = copy.deepcopy(model)
        args = _structured(3)
        twins = copy.deepcopy(args)
        ours, expected = run(*args, factor=3.0), theirs(*twins, factor=3.0)
        torch.testing.assert_close(ours[0], expected[0])
        assert_same(ours[2:], expected[2:])
        torch.testing.assert_close(args, twins)
        model.count.zero_()


@torch.no_grad()
def test_weights_stay_live():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4)))
    run = door.compile(model.eval(), torch.randn(2, 4))
    x = torch.randn(2, 4)

    def check():
        assert_same(run(x), model(x))

    check()
    model[0].weight.mul_(2)
    check()
    model[0].bias = nn.Parameter(torch.randn(4))
    check()
    model[0] = nn.Linear(4, 4)
    check()
    model[2] = nn.Sequential(nn.Linear(4, 4))
    check()
    model.load_state_dict({k: v + 1 for k, v in model.state_dict().items()}, assign=True)
    check()
    model[2] = nn.Identity()
    with pytest.raises(InputError, match=r"no 2\.0\.weight any more"):
        run(x)


def test_tied_weights_are_one_argument(captured):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    run = door.compile(model.eval(), torch.randn(2, 4))
    x = torch.randn(2, 4)
    with torch.no_grad():
        assert_same(run(x), model(x))
    assert len(captured[0].live) == 3


@torch.no_grad()
def test_layouts_of_inputs():
    """Strides other than the example's are copied, and updated inputs still are updated."""

    class Update(nn.Module):
        def forward(self, x, y):
            x.add_(y)
            return x * 2, y

    model = Update()
    run = door.compile(model, (torch.ones(3, 4), torch.ones(3, 4)))
    y = torch.randn(4, 3).t()
    for ours in (torch.ones(4, 3).t(), torch.ones(3, 8)[:, ::2], torch.ones(3, 4)):
        theirs = ours.clone()
        answer, expected = run(ours, y), model(theirs, y)
        torch.testing.assert_close(answer, expected, rtol=0, atol=0)
        assert answer[1] is y
        assert torch.equal(ours, theirs)
    conv = nn.Conv2d(3, 4, 3).eval()
    run = door.compile(conv, torch.randn(1, 3, 8, 8))
    x = torch.randn(1, 3, 8, 8).to(memory_format=torch.channels_last)
    torch.testing.assert_close(run(x), conv(x))
    negative = torch.randn(1, 3, 8, 8, dtype=torch.complex64).conj().imag
    assert negative.is_neg()
    torch.testing.assert_close(run(negative), conv(negative))


@torch.no_grad()
def test_one_tensor_as_two_arguments():
    class Update(nn.Module):
        def forward(self, x, y):
            x.add_(1)
            return x + y

    model = Update()
    run = door.compile(model, (torch.ones(3), torch.ones(3)))
    ours, theirs = torch.ones(3), torch.ones(3)
    assert_same(run(ours, ours), model(theirs, theirs))
    assert_same(run(ours, torch.ones(3)), model(theirs, torch.ones(3)))
    assert_same(ours, theirs)


@torch.no_grad()
def test_aliases():
    class Aliases(nn.Module):
        def forward(self, x, y):
            x.copy_(y)
            return x.view(-1), x, y

    run = door.compile(Aliases(), (torch.zeros(3, 2), torch.zeros(3, 2)))
    x, y = torch.zeros(3, 2), torch.ones(3, 2)
    flat, same, other = run(x, y)
    assert flat.data_ptr() == x.data_ptr()
    assert same is x
    assert other is y


@torch.no_grad()
def test_integers_as_arguments():
    class Take(nn.Module):
        def forward(self, x, n):
            return x[:n] * 2, n + 1

    run = door.compile(Take(), (torch.zeros(9), 4), dynamic_shapes=({}, Dim.DYNAMIC))
    for n in (3, 5):
        assert_same(run(torch.ones(9), n), Take()(torch.ones(9), n))
    with pytest.raises(InputError, match="argument n: expected an int, got float"):
        run(torch.ones(9), 3.0)


def test_gradients_are_eagers():
    class Partly(Block):
        def forward(self, x):
            with torch.no_grad():
                y = x * 2
            return super().forward(x) + y

    model = Partly().eval()
    run = door.compile(model, torch.randn(3, 8))
    for _ in range(3):
        found = []
        x = torch.randn(3, 8)
        for f in (run, model):
            model.zero_grad()
            y = x.clone().requires_grad_()
            answer = f(y)
            answer.square().sum().backward()
            found.append([answer, y.grad, *(p.grad.clone() for p in model.parameters())])
        assert_same(*found)


@torch.no_grad()
def test_the_switch_runs_plain_pytorch(captured):
    model = Block().eval()
    run = door.compile(model, torch.randn(3, 8))
    captured[0].live["broken"] = 99
    x = torch.randn(3, 8)
    switch.disable()
    try:
        assert_same(run(x), model(x))
    finally:
        switch.enable()
    with pytest.raises(IndexError):
        run(x)


@torch.no_grad()
def test_what_the_engine_does_not_take(monkeypatch, caplog):
    model = nn.Dropout(0.5).train()
    assert door.compile(model, torch.randn(3)) is model
    assert "random numbers" in caplog.text

    class Untraceable(nn.Module):
        def forward(self, x):
            return x * 2 if x.sum().item() > 0 else x

    model = Untraceable()
    with pytest.raises(Exception, match="data-dependent"):
        door.compile(model, torch.randn(3))
    monkeypatch.setenv("AIO_STRICT", "0")
    assert door.compile(model, torch.randn(3)) is model
    assert "runs in plain PyTorch" in caplog.text
    with pytest.raises(ConfigError, match="modelname"):
        door.compile(model, torch.randn(3), options={"name": "x"})
    monkeypatch.setenv("AIO_PROCESS_MODE", "0")
    assert door.compile(model, torch.randn(3)) is model


def test_where_symbols_are_read():
    s, t = symbol("s0"), symbol("s1")

    def leaf(*shape):
        return Leaf("x", TensorSpec(shape, torch.float32, (0,) * len(shape)))

    roots = roots_of([leaf(2 * s + 1, 4), leaf(t, s), Leaf("n", t)])
    assert (roots["s0"].leaf, roots["s0"].dimension, roots["s0"].plain) == (1, 1, True)
    assert (roots["s1"].leaf, roots["s1"].dimension) == (1, 0)
    (root,) = roots_of([leaf(2 * s + 1)]).values()
    assert (root.factor, root.addend) == (2, 1)
    with pytest.raises(CaptureError, match="no argument gives the size s0"):
        roots_of([leaf(s * t, t)])


@torch.no_grad()
def test_derived_sizes():
    n = Dim("n", min=2, max=64)

    class Join(nn.Module):
        def forward(self, x, y):
            return torch.cat([x, x]) + y

    run = door.compile(
        Join(), (torch.randn(3, 4), torch.randn(6, 4)), dynamic_shapes=({0: n}, {0: 2 * n})
    )
    for k in (3, 7):
        x, y = torch.randn(k, 4), torch.randn(2 * k, 4)
        assert_same(run(x, y), Join()(x, y))
    with pytest.raises(InputError):
        run(torch.randn(4, 4), torch.randn(7, 4))
