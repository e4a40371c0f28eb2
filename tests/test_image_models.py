"""Small networks of images and volumes: one network of our kernels, blocked from end to end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from benchmarks import images
from torch import Tensor, nn

from accuracy import assert_close, reference, run
from test_operators import assert_ours
from torch_aio.engine.compiled import observed
from torch_aio.ops.reorder import reorder

MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...], int]] = {
    "unet3d": (lambda: images.UNet3d((16, 32, 20)), (torch.randn(1, 1, 8, 12, 8),), 2),
    "unet3d of two": (lambda: images.UNet3d((16, 20)), (torch.randn(2, 1, 4, 6, 8),), 2),
    "super-resolution": (
        lambda: images.SuperResolution(16, 2), (torch.randn(2, 3, 9, 7),), 5,
    ),
    "unet-block": (
        lambda: images.UNetBlock(64, 32), (torch.randn(1, 64, 6, 5), torch.randn(1, 512)), 7,
    ),
}  # fmt: skip


@pytest.mark.parametrize("door", ["freeze", "compile"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_one_network(name: str, door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left to PyTorch, and layouts change only where shuffles and attention want it."""
    monkeypatch.setenv("AIO_STRICT", "1")
    torch.compiler.reset()
    make, inputs, most = MODELS[name]
    model = make().eval()
    with observed() as graphs, torch.no_grad():
        ours: Any
        if door == "freeze":
            ours = torch.jit.freeze(torch.jit.trace(model, inputs, check_trace=False))
        else:
            ours = torch.compile(model, backend="aio")
        answers = [ours(*inputs) for _ in range(3)]
    graphs = list(graphs)
    assert_ours(graphs)
    nodes = graphs[0].variants[-1].gm.graph.nodes
    assert sum(node.target is reorder for node in nodes) <= most
    for answer in answers:
        assert_close(answer, reference(model, *inputs), run(model, inputs), name)
