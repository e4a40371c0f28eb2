"""Models in float16 and bfloat16: the operators of the table and small networks, on our kernels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torch_aio
from accuracy import assert_close, reference, run
from operator_cases import FAMILIES, Case
from test_operators import DOORS, Bundle, assert_ours
from torch_aio.engine.compiled import observed
from torch_aio.kernels.chain import DTYPES
from torch_aio.tools.explain import explanation

HALVES = (torch.float16, torch.bfloat16)
DOOR_OF = dict(zip(HALVES, ("freeze", "compile dynamic"), strict=True))
"""Each dtype through another door: the third shares its capture with the second."""


@pytest.fixture(autouse=True)
def _strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIO_STRICT", "1")


def narrow(case: Case, n: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The case's inputs with floats in ``dtype``."""
    return tuple(x.to(dtype) if x.is_floating_point() else x for x in case.inputs(n))


def takes(case: Case, dtype: torch.dtype) -> bool:
    """Whether eager takes a case in ``dtype``."""
    inputs = narrow(case, 5, dtype)
    try:
        run(Bundle([case], [len(inputs)]).to(dtype), inputs)
    except (RuntimeError, NotImplementedError):
        return False
    return True


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("dtype", HALVES, ids=DTYPES.get)
@pytest.mark.parametrize("family", FAMILIES)
def test_family_in_half(family: str, dtype: torch.dtype) -> None:
    """All operators of a family in one graph, in one network, as near to fp64 as eager's half."""
    torch.compiler.reset()
    cases = [case for case in FAMILIES[family] if case.varies and takes(case, dtype)]
    model = Bundle(cases, [len(case.inputs(5)) for case in cases]).eval().to(dtype)
    small, large = (tuple(x for c in cases for x in narrow(c, n, dtype)) for n in (5, 11))
    with observed() as graphs, torch.no_grad():
        ours = DOORS[DOOR_OF[dtype]](model, small, large)(*small)
    assert_ours(graphs)
    answers = zip(cases, ours, reference(model, *small), run(model, small), strict=True)
    for case, y, ref, own in answers:
        assert_close(y, ref, own, f"{case} of {dtype}")


class Encoder(nn.Module):
    """Attention and a feed-forward layer with residuals."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.TransformerEncoderLayer(64, 4, 96, activation="gelu", batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, length, 64] -> the same."""
        return self.inner(x)  # type: ignore[no-any-return]


class Images(nn.Module):
    """A first layer, a depthwise and a 1x1 convolution with batch norms, a residual, a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 20, 3, padding=1), nn.BatchNorm2d(20)
        self.depthwise = nn.Conv2d(20, 20, 3, padding=1, groups=20)
        self.point, self.head = nn.Conv2d(20, 20, 1), nn.Linear(20, 7)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 3, height, width] -> [batch, 7]."""
        x = F.max_pool2d(F.relu(self.norm(self.first(x))), 2)
        return self.head((x + self.point(F.relu6(self.depthwise(x)))).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("dtype", HALVES, ids=DTYPES.get)
@pytest.mark.parametrize("door", ["compile", "freeze", "export"])
def test_network_in_half(door: str, dtype: torch.dtype) -> None:
    """A whole model is one network, its answer of its dtype and as near to fp64 as eager's."""
    torch.compiler.reset()
    for kind, shapes in ((Encoder, ((2, 9, 64), (2, 7, 64))), (Images, ((2, 3, 12, 10),) * 2)):
        torch.manual_seed(0)
        model = kind().eval().to(dtype)
        inputs, others = ((torch.randn(shape).to(dtype),) for shape in shapes)
        with observed() as graphs, torch.no_grad():
            make = {**DOORS, "export": lambda model, inputs, _: torch_aio.compile(model, inputs)}
            ours = make[door](model, inputs, others)(*inputs)
        assert_ours(graphs)
        assert_close(ours, reference(model, *inputs), run(model, inputs), f"{kind.__name__} {door}")


def test_explain_says_what_is_widened() -> None:
    """A linear layer in half is computed in float32, and its line says so."""
    model = nn.Linear(16, 16).half().eval()
    lines = explanation(model, torch.randn(3, 16).half()).lines
    assert [line.widened for line in lines if line.op == "linear.default"] == [True]
    assert any("; in float32" in line.what for line in lines)
