"""A watch over tensors sees whatever changes them, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_aio.runtime.machine import machine
from torch_aio.runtime.tensor_layout import tensor_layout
from torch_aio.runtime.watch import watch

CHANGES = {
    "in place": lambda t: t.add_(1),
    "in place through a view": lambda t: t[0].zero_(),
    "in place through detach": lambda t: t.detach().mul_(2),
    "other data": lambda t: setattr(t, "data", torch.randn(4, 4)),
    "data of another dtype": lambda t: setattr(t, "data", t.data.view(torch.int32)),
    "data transposed": lambda t: setattr(t, "data", t.data.t()),
    "data of another shape": lambda t: setattr(t, "data", t.data.view(16)),
    "data from elsewhere in the memory": lambda t: setattr(t, "data", t.data[1:]),
    "data of more dimensions": lambda t: setattr(t, "data", t.data.unsqueeze(-1)),
    "new memory": lambda t: t.untyped_storage().resize_(1 << 16),
    "another storage": lambda t: t.set_(torch.randn(4, 4)),
    "transposed in place": lambda t: t.t_(),
}


def watched(*tensors):
    return watch(machine().differs, tensors)


def test_the_layout_of_this_pytorch_is_known():
    layout = tensor_layout()
    assert layout is not None
    own = dict(vars(layout))
    del own["data"], own["version"]
    assert len({*own.values()}) == len(own)


@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_a_change_of_any_tensor_shows(change):
    for position in range(3):
        tensors = [nn.Parameter(torch.randn(4, 4), requires_grad=False) for _ in range(3)]
        seen = watched(*tensors)
        assert seen.holds()
        CHANGES[change](tensors[position])
        assert not seen.holds()
        assert watched(*tensors).holds()


@torch.no_grad()
def test_reading_changes_nothing():
    tensors = [torch.randn(3), torch.randn(2, 3, 4, 5, 6), torch.tensor(1.0), torch.randn(4).half()]
    seen = watched(*tensors)
    for t in tensors:
        (
            t.sum(),
            t.numpy(),
            t.view(-1),
            t.detach(),
            t.t() if t.dim() < 3 else t,
            t.requires_grad_(),
        )
        t.requires_grad_(requires_grad=False)
    assert seen.holds()


def test_inference_tensors_and_none_at_all():
    with torch.inference_mode():
        tensor = torch.randn(4)
    assert watched(tensor).holds()
    assert watched().holds()


def test_six_dimensions_are_not_watched():
    assert watched(torch.randn(1, 1, 1, 1, 1, 2)) is None
