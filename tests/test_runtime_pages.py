"""Packed constants on huge pages: contents, alignment, lifetime."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from torch_aio.runtime import pages


@pytest.fixture(autouse=True)
def _no_open_region(monkeypatch):
    monkeypatch.setattr(pages, "_open", [])


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8, torch.bool, torch.float64])
def test_contents_shape_and_alignment_are_kept(dtype):
    source = torch.randn(7, 331, 67).to(dtype)
    settled = pages.settled(source)
    assert settled.dtype == dtype
    assert torch.equal(settled, source)
    assert settled.data_ptr() % pages.LINE == 0
    assert settled.data_ptr() != source.data_ptr()


def test_a_small_tensor_stays_where_it_is():
    small = torch.randn(16)
    assert pages.settled(small) is small


def test_a_tensor_that_is_not_row_major_stays_where_it_is():
    """Copied densely it would lose the strides that its readers rely on."""
    turned = torch.randn(300, 200).t()
    assert pages.settled(turned) is turned


def test_tensors_share_a_region_that_begins_at_a_huge_page():
    first, second = (pages.settled(torch.randn(1 << 16)) for _ in range(2))
    assert first.data_ptr() % pages.HUGE == 0
    assert second.data_ptr() == first.data_ptr() + 4 * (1 << 16)


def test_a_tensor_larger_than_a_region_has_its_own(monkeypatch):
    monkeypatch.setattr(pages, "REGION", 1 << 20)
    large, after = torch.randn(1 << 19), torch.randn(1 << 16)
    settled = pages.settled(large), pages.settled(after)
    assert torch.equal(settled[0], large)
    assert torch.equal(settled[1], after)


def test_memory_is_given_back_when_a_tensor_dies_and_its_region_with_the_last():
    first, second = (pages.settled(torch.ones(1 << 16)) for _ in range(2))
    (region,) = pages._open
    alive = weakref.ref(region)
    view = first[5:]
    del first
    gc.collect()
    assert view.sum() == view.numel()  # a view keeps the memory
    del view
    gc.collect()
    again = torch.frombuffer(region._map, dtype=torch.float32, offset=_start(region))
    assert again[: 1 << 16].sum() == 0  # pages come back as zeros
    assert second.sum() == second.numel()
    del again, second, region
    pages._open.clear()
    gc.collect()
    assert alive() is None


def _start(region):
    return region._end - pages.REGION


def test_threads_get_pieces_of_their_own():
    sources = [torch.full((1 << 15,), float(n)) for n in range(32)]
    with ThreadPoolExecutor(4) as pool:
        settled = list(pool.map(pages.settled, sources))
    assert all(torch.equal(a, b) for a, b in zip(settled, sources, strict=True))
