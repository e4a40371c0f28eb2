"""Views of strided memory, against torch's own."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from torch_aio.plan.strides import reshaped


@st.composite
def strided(draw: st.DrawFn) -> torch.Tensor:
    """A permuted, sliced, sometimes expanded tensor."""
    shape = draw(st.lists(st.integers(1, 4), max_size=4))
    order = draw(st.permutations(range(len(shape))))
    x = torch.empty([2 * s for s in shape]).permute(order) if shape else torch.empty([])
    for dim, size in enumerate(x.shape):
        step = draw(st.sampled_from([1, 2]))
        x = x[(slice(None),) * dim + (slice(0, size, step),)]
    return x.unsqueeze(0).expand(3, *x.shape) if draw(st.booleans()) else x


@given(strided(), st.lists(st.integers(1, 6), max_size=4))
def test_reshape_strides_are_torchs(x: torch.Tensor, cut: list[int]) -> None:
    """``reshaped`` gives torch's strides for every view torch allows, and None for the others."""
    target, rest = [], x.numel()
    for size in cut:
        if rest % size == 0:
            target.append(size)
            rest //= size
    target.append(rest)
    try:
        want = x.view(target).stride()
    except RuntimeError:
        assert reshaped(tuple(x.shape), x.stride(), target) is None
        return
    have = reshaped(tuple(x.shape), x.stride(), target)
    assert have is not None
    assert all(a == b for a, b, size in zip(want, have, target, strict=True) if size != 1)
