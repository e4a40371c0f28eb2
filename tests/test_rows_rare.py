"""Reductions, indexing, joining and rarer elementwise operators: every node on our kernels."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

import torch_aio
from accuracy import assert_close, widened
from graph_forms import Of

UNARY = {
    "sum": lambda x: x.sum(-1), "sum first": lambda x: x.sum(0), "sum all": lambda x: x.sum(),
    "mean middle": lambda x: x.mean((1, 2)), "mean kept": lambda x: x.mean((2, 3), keepdim=True),
    "mean apart": lambda x: x.mean((0, 2)), "sum transposed": lambda x: x.transpose(1, 3).sum(1),
    "amax": lambda x: x.amax(1), "amin": lambda x: x.amin((-1, -2)), "prod": lambda x: x.prod(2),
    "any": lambda x: (x > 2).any(-1), "all": lambda x: (x > -2).all(1),
    "argmax": lambda x: x.argmax(2), "argmax all": lambda x: x.argmax(),
    "argmin kept": lambda x: x.argmin(-1, keepdim=True), "count": lambda x: (x > 0).sum((1, 3)),
    "normalize": lambda x: functional.normalize(x, dim=1), "var": lambda x: x.var((0, 1)),
    "std": lambda x: x.std(-1, keepdim=True), "cumsum": lambda x: x.cumsum(1),
    "cumsum of bools": lambda x: (x > 0).cumsum(-1),
    "cat": lambda x: torch.cat([x, x.abs(), x.relu()], 2),
    "stack": lambda x: torch.stack([x, x + 1]),
    "pad": lambda x: functional.pad(x, (1, 2, 0, 3), value=1.5),
    "pad negative": lambda x: functional.pad(x, (-1, 2)), "flip": lambda x: x.flip(1, -1),
    "repeat": lambda x: x.repeat(2, 1, 3, 1, 2),
    "group norm": lambda x: functional.group_norm(x, 2),
    "remainder": lambda x: x.remainder(0.75),
    "remainder of integers": lambda x: (x * 10).long() % 7,
    "fmod": lambda x: x.fmod(0.75), "pow": lambda x: x.abs().pow(x * 0.5), "powers": lambda x: 2**x,
    "addcmul": lambda x: torch.addcmul(x, x, x, value=0.5), "lerp": lambda x: x.lerp(x * 2, 0.3),
    "threshold": lambda x: functional.threshold(x, 0.1, 2.0),
    "isfinite": lambda x: (x / 0).isfinite(),
    "permute and copy": lambda x: x.permute(0, 2, 3, 1).contiguous() + 1,
    "transpose and flatten": lambda x: x.transpose(1, 3).reshape(3, -1) * 2,
    "integers transposed": lambda x: (x * 9).long().transpose(0, 3).contiguous(),
    "log softmax": lambda x: functional.log_softmax(x, 1),
}  # fmt: skip
INDEXED = {
    "embedding": lambda x, i: functional.embedding(i, x[:, :, 0, 0].t()),
    "index_select": lambda x, i: x.index_select(1, i[0]),
    "index in the middle": lambda x, i: x[:, i],
    "two index tensors": lambda x, i: x[i[:1] % 3, i - 6],
    "gather": lambda x, i: x[:, :, 0, 0].gather(1, i),
}


def check(function, *inputs) -> None:
    with torch.no_grad():
        eager, exact = function(*inputs), function(*map(widened, inputs))
        compiled = torch_aio.compile(Of(function), inputs)
        y = compiled(*inputs)
        explanation = torch_aio.explain(compiled, *inputs)
    assert_close(y, exact if eager.is_floating_point() else eager, eager)
    assert y.stride() == eager.stride()
    assert not explanation.left_to_aten, str(explanation)


@pytest.mark.parametrize("name", UNARY)
def test_operator(name, monkeypatch):
    monkeypatch.setenv("AIO_STRICT", "1")
    check(UNARY[name], torch.randn(3, 6, 7, 9))


@pytest.mark.parametrize("name", INDEXED)
def test_indexing(name, monkeypatch):
    monkeypatch.setenv("AIO_STRICT", "1")
    check(INDEXED[name], torch.randn(3, 6, 7, 9), torch.randint(0, 6, (3, 4)))


def test_an_index_outside_raises_as_eager():
    table, places = torch.randn(5, 4), torch.tensor([1, 2])
    compiled = torch_aio.compile(Of(lambda t, i: functional.embedding(i, t)), (table, places))
    with torch.no_grad():
        with pytest.raises(IndexError, match="out of range"):
            compiled(table, places + 3)
        assert torch.equal(compiled(table, places), table[places])
