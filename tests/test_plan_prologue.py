"""Chains in front of norms and softmax: one step, which also writes what others read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torch_aio
from accuracy import assert_close, reference, run
from torch_aio.engine.compiled import observed

Function = Callable[..., Any]


class Model(nn.Module):
    """A function as a module, with a weight and a bias for norms of 33 columns."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function
        self.w, self.b = (nn.Parameter(torch.randn(33)) for _ in range(2))
        self.square = nn.Parameter(torch.randn(33, 33))

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


def kernels(function: Function, *inputs: Tensor, dynamic: Any = None) -> list[str]:
    """The names of the steps, after comparing the answers with fp64."""
    model = Model(function).eval()
    with torch.no_grad(), observed() as graphs:
        compiled = torch_aio.compile(model, inputs, dynamic_shapes=dynamic)
        ours = compiled(*inputs)
        assert_close(ours, reference(model, *inputs), run(model, inputs))
    (item,) = graphs[0].variants[-1].networks.values()
    return [step.spec.name for step in item.plan.steps]


def pair() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 5, 33), torch.randn(2, 5, 33)


def pre_norm(m: Model, a: Tensor, b: Tensor) -> Any:
    total = a + b
    return torch.tanh(F.layer_norm(total, (33,), m.w, m.b)), total


def residual(m: Model, a: Tensor, b: Tensor) -> Tensor:
    total = a + b
    return total + F.linear(F.rms_norm(total, (33,), m.w), m.square)


def post_norm(m: Model, a: Tensor, b: Tensor) -> Tensor:
    return F.layer_norm(a + b * 2, (33,), m.w, m.b)


def halves_out(m: Model, a: Tensor, b: Tensor) -> Tensor:
    return (F.layer_norm(a + b * m.b, (33,)) > 0.5).to(torch.int32)


def attended(m: Model, a: Tensor, b: Tensor) -> Tensor:
    return torch.softmax(a / 4 + b[:1, :1] + b[:, :, 2:3], -1)


@pytest.mark.parametrize(
    "function", [pre_norm, post_norm, halves_out, attended], ids=lambda f: f.__name__
)
def test_the_chain_in_front_is_no_step(function: Function) -> None:
    """Whether others read its result or not, with numbers by row and column, a chain behind."""
    (name,) = kernels(function, *pair())
    assert "_of_" in name
    assert ("_sum" in name) == (function is pre_norm)


def test_a_residual_lives_on() -> None:
    names = kernels(residual, *pair())
    assert len(names) == 2
    assert names[0].startswith("rms_norm_f32_w_of_add")
    assert "_sum" in names[0]


def test_sizes_may_vary() -> None:
    sizes = ({1: torch.export.Dim.AUTO}, {1: torch.export.Dim.AUTO})
    assert len(kernels(pre_norm, *pair(), dynamic=(sizes,))) == 1


def behind_a_product(m: Model, a: Tensor, b: Tensor) -> Any:
    total = F.linear(a, m.square) + b
    return F.layer_norm(total, (33,)), total


def read_before(m: Model, a: Tensor, b: Tensor) -> Tensor:
    total = a + b
    return F.layer_norm(total, (33,), m.w) + torch.relu(total).sum(-1, keepdim=True)


def read_twice(m: Model, a: Tensor, b: Tensor) -> Any:
    total = a + b
    return F.layer_norm(total, (33,)), F.rms_norm(total, (33,))


def scores_too(m: Model, a: Tensor, b: Tensor) -> Any:
    total = a * 3 + b
    return torch.softmax(total, -1), total


def transposed(m: Model, a: Tensor, b: Tensor) -> Tensor:
    return F.layer_norm((a + b).transpose(0, 1), (33,))


def columns(m: Model, a: Tensor, b: Tensor) -> Tensor:
    return F.layer_norm(a[:, :, ::2] + b[:, :, ::2], (17,))


def two_dims(m: Model, a: Tensor, b: Tensor) -> Tensor:
    return F.layer_norm(a * m.w + b, (5, 33)) * m.b + b[:, :, :1]


def over_batch(m: Model, a: Tensor, b: Tensor) -> Tensor:
    return torch.softmax(a + b[:, :1], -1)


def over_rows(m: Model, a: Tensor, b: Tensor) -> Tensor:
    return torch.softmax(a + b, 1)


@pytest.mark.parametrize(
    ("function", "steps"),
    [
        (behind_a_product, 2), (read_before, 4), (read_twice, 2), (scores_too, 2), (transposed, 3),
        (columns, 2), (two_dims, 4), (over_batch, 2), (over_rows, 4),
    ],
    ids=lambda f: getattr(f, "__name__", ""),
)  # fmt: skip
def test_where_it_cannot_join_the_answer_is_right(function: Function, steps: int) -> None:
    """Products keep their epilogue; what is read earlier, or in another layout, is made before."""
    assert len(kernels(function, *pair())) == steps
