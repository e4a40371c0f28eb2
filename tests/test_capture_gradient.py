"""Where a gradient could be asked for, answer and gradient are eager's."""

from __future__ import annotations

import pytest
import torch

import torch_aio.capture.dynamo as door
from capture_doors import Block, Counter, assert_same, compiled, plain_engine


@pytest.fixture
def captured(monkeypatch):
    """The list of captured graphs; they run in plain PyTorch."""
    seen = []
    monkeypatch.setattr(door, "compile_graph", plain_engine(seen))
    monkeypatch.setenv("AIO_STRICT", "1")
    torch.compiler.reset()
    return seen


def _gradients(function, model, x, loss=lambda y: y.square().sum()):
    model.zero_grad()
    x = x.clone().requires_grad_()
    answer = function(x)
    loss(answer).backward()
    return [answer, x.grad, *(p.grad.clone() for p in model.parameters())]


def test_gradients_are_eagers(captured):
    """The first call is eager, the second recomputes, and after a backward all are eager's."""
    model = Block().eval()
    function = compiled(model)
    for _ in range(4):
        x = torch.randn(3, 8)
        assert_same(_gradients(function, model, x), _gradients(model, model, x))


def test_inference_in_grad_mode_uses_the_engine(captured):
    model = Block().eval()
    function = compiled(model)
    x = torch.randn(3, 8)
    assert_same([function(x), function(x)], [model(x), model(x)])
    assert type(function(x).grad_fn).__name__ == "_RecomputeBackward"
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert_same(function(x), model(x))


def test_second_derivatives_are_eagers(captured):
    model = Block().eval()
    function = compiled(model)
    x = torch.randn(3, 8)
    function(x)
    found = []
    for f in (function, model):
        y = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(f(y).square().sum(), y, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), [y, *model.parameters()]))
    assert_same(*found)


def test_inputs_that_depend_on_each_other(captured):
    def product(a, b):
        return (a * b).sin()

    function = compiled(product)
    for _ in range(2):
        found = []
        for f in (function, product):
            a = torch.linspace(0, 1, 5, requires_grad=True)
            found.append(torch.autograd.grad(f(a, a * 2).sum(), a)[0])
        assert_same(*found)


def test_outputs_without_gradient(captured):
    model = Block().eval()

    def several(x):
        y = model(x)
        return y, y.argmax(-1), y.detach() * 2, (x > 0)

    function = compiled(several)
    for _ in range(3):
        x = torch.randn(3, 8)
        assert_same(function(x), several(x))
    x = torch.randn(3, 8)
    assert_same(
        _gradients(lambda x: function(x)[0], model, x),
        _gradients(lambda x: several(x)[0], model, x),
    )


def test_grad_modes_inside(captured):
    model = Block().eval()

    @torch.no_grad()
    def decorated(x):
        return model(x)

    def mixed(x):
        with torch.no_grad():
            y = model(x)
        return y * model.scale + model(x)

    def enabled(x):
        with torch.enable_grad():
            return model(x)

    def leaves(x):
        torch.set_grad_enabled(False)
        return model(x)

    x = torch.randn(3, 8)
    for function in (decorated, mixed, enabled, leaves):
        for outer in (True, False):
            torch.compiler.reset()
            ours = compiled(function)
            for _ in range(2):
                answers = []
                for f in (ours, function):
                    with torch.set_grad_enabled(outer):
                        answers.append((f(x), torch.is_grad_enabled()))
                assert_same(*answers)


def test_updates_with_gradients_are_eagers(captured):
    ours, theirs = Counter(), Counter()
    function = compiled(ours)
    for _ in range(3):
        x = torch.randn(2, requires_grad=True)
        answer = function(x)
        assert_same(answer, theirs(x))
        assert_same(ours.count, theirs.count)
