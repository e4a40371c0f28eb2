"""``F.layer_norm`` with ``rms``, and ``torch.aio_rope``: in eager and through every door."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import subprocesses
import torch_aio
from accuracy import assert_close, reference, run
from torch_aio.capture import eager
from torch_aio.engine.compiled import observed
from torch_aio.ops.rotate import rotate


def rms(x: Tensor, weight: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weight, None, eps, True)


def rms_spelled(x: Tensor, weight: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return x if weight is None else x * weight


def rope_spelled(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    wide = torch.promote_types(x.dtype, torch.float32)
    share = torch.arange(0, x.shape[-1], 2, dtype=wide) / x.shape[-1]
    angles = positions[:, None, :, None].to(wide) / theta**share
    return rotate(x.to(wide), angles.cos(), angles.sin()).to(x.dtype)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The keys of calls that our kernels were asked for."""
    keys: list[Any] = []

    class Ready(dict[Any, Any]):
        def get(self, key: Any, default: Any = None) -> Any:
            keys.append(key)
            return super().get(key, default)

    monkeypatch.setenv("AIO_STRICT", "1")
    monkeypatch.setattr(eager, "_ready", Ready())
    return keys


NORMED: list[Callable[[], Tensor]] = [
    lambda: torch.randn(33),
    lambda: torch.randn(3, 33),
    lambda: torch.randn(2, 5, 33),
    lambda: torch.randn(5, 2, 33).transpose(0, 1),
    lambda: torch.randn(2, 1, 33).expand(2, 5, 33),
    lambda: torch.randn(0, 33),
    lambda: torch.randn(1, 7, 4096),
]


@pytest.mark.parametrize("make", NORMED)
def test_eager_rms_norm_runs_on_our_kernel(make: Callable[[], Tensor], ran: list[Any]) -> None:
    """Every rank and layout, with a weight and without, and again with what is remembered."""
    x = make()
    for weight in (None, torch.randn(x.shape[-1]), None):
        ours = rms(x, weight)
        wide = rms_spelled(x.double(), None if weight is None else weight.double())
        assert_close(ours, wide, rms_spelled(x, weight))
        assert ours.is_contiguous()
    assert len(ran) == 3
    assert len(eager._ready) == 2


TURNED: list[Callable[[], Tensor]] = [
    lambda: torch.randn(2, 3, 5, 16),
    lambda: torch.randn(2, 5, 3, 16).transpose(1, 2),
    lambda: torch.randn(2, 5, 9, 16)[:, :, 3:6].transpose(1, 2),
    lambda: torch.randn(2, 1, 1, 6),
    lambda: torch.randn(2, 0, 5, 16),
    lambda: torch.randn(2, 3, 5, 130).to(torch.bfloat16),
    lambda: torch.randn(2, 3, 5, 18).to(torch.float16),
]


@pytest.mark.parametrize("make", TURNED)
def test_eager_rope_runs_on_our_kernel(make: Callable[[], Tensor], ran: list[Any]) -> None:
    """Positions of each sample or of all; strides are those that the operator gives."""
    x = make()
    positions = torch.randint(0, 3000, (2, x.shape[2]))
    for ids in (positions, positions[:1], positions[:1].expand(2, -1)):
        ours = torch.aio_rope(x, ids, 10000)
        plain = torch.ops.aio.rope(x, ids, 10000.0)
        wide = rope_spelled(x.double(), ids, 1e4)
        assert_close(ours, wide.to(x.dtype).double() if x.itemsize == 2 else wide, plain)
        assert ours.stride() == plain.stride()
    assert len(ran) == 3
    assert len(eager._ready) == 2


def test_another_order_of_memory_is_pytorchs(ran: list[Any]) -> None:
    """Also where an equal shape was rotated before."""
    positions = torch.arange(5)[None]
    for order in ((0, 2, 1, 3), (2, 1, 0, 3), (3, 0, 1, 2)):
        back = [order.index(d) for d in range(4)]
        sizes = (2, 3, 5, 16)
        x = torch.randn([sizes[d] for d in order]).permute(back)
        assert_close(
            torch.aio_rope(x, positions, 1e4),
            rope_spelled(x.double(), positions, 1e4),
            torch.ops.aio.rope(x, positions, 1e4),
        )
    assert len(eager._ready) == 1


def test_a_bias_is_an_error() -> None:
    x, w = torch.randn(3, 33), torch.randn(33)
    sentence = "layer_norm with rms=True is RMS norm, which takes no bias"
    with pytest.raises(RuntimeError, match=sentence):
        F.layer_norm(x, (33,), w, w, 1e-6, True)


def test_layer_norm_itself_is_pytorchs() -> None:
    x, w = torch.randn(3, 33), torch.randn(33)
    expected = torch.layer_norm(x, (33,), w, w, 1e-5)
    assert torch.equal(F.layer_norm(x, (33,), w, w), expected)
    assert F.layer_norm.__module__ == "torch.nn.functional"


@pytest.mark.parametrize(
    ("x", "ids", "words"),
    [
        (torch.randn(2, 3, 5, 15), torch.zeros(2, 5, dtype=torch.int64), "even width"),
        (torch.randn(3, 16), torch.zeros(2, 5, dtype=torch.int64), "even width"),
        (torch.ones(2, 3, 5, 16).long(), torch.zeros(2, 5, dtype=torch.int64), "floating point"),
        (torch.randn(2, 3, 5, 16), torch.zeros(2, 4, dtype=torch.int64), "batch or 1, length"),
        (torch.randn(2, 3, 5, 16), torch.zeros(3, 5, dtype=torch.int64), "batch or 1, length"),
        (torch.randn(2, 3, 5, 16), torch.zeros(2, 5), "integers"),
    ],
)
def test_what_does_not_fit_is_an_error(x: Tensor, ids: Tensor, words: str) -> None:
    with pytest.raises(RuntimeError, match=f"aio_rope: .*{words}"):
        torch.aio_rope(x, ids, 1e4)


def test_rope_has_no_backward_and_says_so() -> None:
    x = torch.randn(2, 3, 5, 16, requires_grad=True)
    y = torch.aio_rope(x, torch.arange(5)[None], 1e4)
    assert_close(y.detach(), *(rope_spelled(t, torch.arange(5)[None], 1e4).detach()
                               for t in (x.double(), x)))  # fmt: skip
    with pytest.raises(RuntimeError, match="aio_rope has no backward"):
        y.sum().backward()


def test_rms_norm_keeps_its_gradient_and_transforms() -> None:
    x, w = torch.randn(4, 3, 33), torch.randn(33)
    ours, theirs = (x.clone().requires_grad_() for _ in range(2))
    rms(ours, w).square().sum().backward()
    rms_spelled(theirs, w).square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(torch.vmap(lambda row: rms(row, w))(x), rms_spelled(x, w))


def test_the_operator_is_sound() -> None:
    torch.library.opcheck(
        torch.ops.aio.rope.default, (torch.randn(2, 3, 5, 16), torch.arange(5)[None], 1e4)
    )


def test_special_values_equal_eager() -> None:
    x = torch.randn(4, 33)
    x[0, 3], x[1, 4], x[2] = math.nan, math.inf, 0.0
    assert_close(rms(x), rms_spelled(x.double()).float().double(), rms_spelled(x))


class Both(nn.Module):
    """The flag, PyTorch's own class, and rotations of queries and keys."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(48, eps=1e-6)
        nn.init.normal_(self.norm.weight)

    def forward(self, x: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Two rotations of normalised heads."""
        y = F.layer_norm(self.norm(x), [48], self.norm.weight, None, 1e-6, True)
        q = y.view(x.shape[0], x.shape[1], 3, 16).transpose(1, 2)
        return torch.aio_rope(q, ids, 10000), torch.aio_rope(q[:, :1], ids, 500.0)


def reloaded(script: Any) -> Any:
    buffer = io.BytesIO()
    torch.jit.save(script, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


DOORS: dict[str, Callable[[nn.Module, tuple[Tensor, ...]], Any]] = {
    "script": lambda m, _: torch.jit.freeze(torch.jit.script(m)),
    "load": lambda m, _: reloaded(torch.jit.freeze(torch.jit.script(m))),
    "trace": lambda m, inputs: torch.jit.freeze(torch.jit.trace(m, inputs)),
    "compile": lambda m, _: torch.compile(m, backend="aio", fullgraph=True),
    "export": torch_aio.compile,
}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_takes_both(door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIO_STRICT", "1")
    torch.compiler.reset()
    model, inputs = Both().eval(), (torch.randn(2, 5, 48), torch.randint(0, 99, (2, 5)))
    with torch.no_grad(), observed() as graphs:
        ours = DOORS[door](model, inputs)(*inputs)
        assert_close(ours, reference(model, *inputs), run(model, inputs), door)
    nodes = [n for g in graphs for n in g.variants[-1].gm.graph.nodes if "verdict" in n.meta]
    assert nodes
    assert not [n for n in nodes if n.meta["verdict"].kind == "aten"]
    assert sum(n.target is torch.ops.aten.rms_norm.default for n in nodes) == 2
    assert sum(n.target is torch.ops.aio.rotate.default for n in nodes) == 2


def test_with_the_engine_off_the_names_stay() -> None:
    program = """
import sys, torch
x, ids = torch.ones(1, 1, 2, 4), torch.arange(2)[None]
print(torch.aio_rope(x, ids, 10000)[0, 0, 1].tolist())
print(torch.nn.functional.layer_norm(x, (4,), None, None, 0.0, True).sum().item())
print("llvmlite" in sys.modules)
"""
    first, second, heavy = subprocesses.run(program, AIO_PROCESS_MODE="0").stdout.splitlines()
    angles = torch.tensor([1.0, 0.01])
    expected = torch.cat((angles.cos() - angles.sin(), angles.cos() + angles.sin()))
    torch.testing.assert_close(torch.tensor(eval(first)), expected)
    assert (second, heavy) == ("8.0", "False")
