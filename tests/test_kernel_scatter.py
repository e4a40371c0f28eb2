"""Kernels that write where index tensors say, and bags of rows; refusals' sentences."""

from __future__ import annotations

import pytest
import torch

import torch_aio
from graph_forms import Of
from guarded import guarded
from kernel_runner import ISAS, run_kernel
from torch_aio.kernels.chain import DTYPES
from torch_aio.kernels.embedding_bag import EmbeddingBagSpec
from torch_aio.kernels.gather import OUT_OF_RANGE
from torch_aio.kernels.scatter import ScatterSpec

isas = pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)


def bags(isa, mode, table, indices, offsets, padding=-1, weights=None):
    """``embedding_bag`` (the last bag up to the end), and the error word."""
    y = guarded(torch.full((len(offsets), table.shape[1]), 9.0))
    error = torch.zeros(1, dtype=torch.int64)
    spec = EmbeddingBagSpec(mode, DTYPES[indices.dtype], weights is not None)
    arguments = {} if weights is None else {"weights": weights}
    run_kernel(spec, isa, len(offsets), 2, table=table, table_row=table.stride(0) * 4,
               rows=len(table), width=table.shape[1], padding=padding, indices=indices,
               count=len(indices), offsets=offsets, given=len(offsets), y=y, error=error,
               **arguments)  # fmt: skip
    return y, int(error)


@isas
@pytest.mark.parametrize("index", [torch.int64, torch.int32], ids=str)
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags(isa, mode, index):
    """Widths around vectors and tiles, an empty bag, a padding row."""
    for width in (1, 7, 16, 17, 64, 65, 130):
        table = guarded(torch.randn(11, width))
        indices = guarded(torch.randint(0, 11, (23,), dtype=index))
        offsets = guarded(torch.tensor([0, 3, 3, 10], dtype=index))
        y, error = bags(isa, mode, table, indices, offsets, padding=int(indices[4]))
        expected = torch.nn.functional.embedding_bag(
            indices, table, offsets, mode=mode, padding_idx=int(indices[4])
        )
        torch.testing.assert_close(y, expected)
        assert error == 0


@isas
def test_weighted_bags(isa):
    """Each row times its weight."""
    table, weights = guarded(torch.randn(11, 33)), guarded(torch.randn(9))
    indices, offsets = torch.randint(0, 11, (9,)), torch.tensor([0, 4])
    y, _ = bags(isa, "sum", table, indices, offsets, weights=weights)
    rows = table[indices] * weights[:, None]
    torch.testing.assert_close(y, torch.stack([rows[:4].sum(0), rows[4:].sum(0)]))


@isas
@pytest.mark.parametrize(
    ("indices", "offsets"),
    [([0, 11], [0, 1]), ([0, -1], [0, 1]), ([0, 1], [0, 5]), ([0, 1], [1, 2]), ([0, 1], [0, -1])],
)
def test_a_bag_outside_sets_the_error_word_and_reads_nothing(isa, indices, offsets):
    """Indices outside the table; offsets outside the indices, or that do not start at 0."""
    table = guarded(torch.randn(11, 9))
    given = [guarded(torch.tensor(numbers)) for numbers in (indices, offsets)]
    assert bags(isa, "sum", table, *given)[1] == OUT_OF_RANGE


@isas
@pytest.mark.parametrize("op", ["set", "add", "mul", "max", "min"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64], ids=str)
def test_scattered_lines(isa, op, dtype):
    """Along the first and last dimension, in the order of the source."""
    names = {"set": None, "add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    for dim in (0, 1):
        x = (torch.randn(9, 17) * 5).to(dtype)
        source = guarded((torch.randn(7, 8) * 5).to(dtype))
        index = guarded(torch.randint(0, 9, (7, 8)))
        y, error = guarded(x.clone()), torch.zeros(1, dtype=torch.int64)
        size = dtype.itemsize
        strides = {
            f"{name}_{d}": value.stride(d) * value.element_size()
            for name, value in (("source", source), ("index", index), ("y", y)) for d in (0, 1)
        }  # fmt: skip
        word = f"i{8 * size}" if op == "set" else DTYPES[dtype]
        run_kernel(ScatterSpec(op, word, 2, dim), isa, source.shape[1 - dim], 3, source=source,
                   index=index, y=y, old=y, size=x.shape[dim], error=error, n0=7, n1=8,
                   **strides)  # fmt: skip
        if op == "set":
            expected = x.scatter(dim, index, source)
        else:
            expected = x.scatter_reduce(dim, index, source, names[op])
        torch.testing.assert_close(y, expected)
        assert int(error) == 0


REFUSED = {
    "scattered means have no kernel":
        lambda x, i: x.scatter_reduce(0, i, x, "mean"),
    "index_add with a factor has no kernel":
        lambda x, i: x.index_add(0, i[:, 0], x, alpha=2),
    "index_put by several index tensors has no kernel":
        lambda x, i: x.index_put((i[0], i[1]), x[0]),
    "bags of float64 have no kernel":
        lambda x, i: torch.nn.functional.embedding_bag(i, x.double()),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_refusals(reason, monkeypatch):
    """What has no kernel says so, and the answer is PyTorch's."""
    monkeypatch.setenv("AIO_STRICT", "1")
    x, i = torch.randn(5, 5), torch.stack([torch.randperm(5) for _ in range(5)])
    with torch.no_grad():
        compiled = torch_aio.compile(Of(REFUSED[reason]), (x, i))
        torch.testing.assert_close(compiled(x, i), REFUSED[reason](x, i))
        explanation = torch_aio.explain(compiled, x, i)
    assert reason in {line.detail for line in explanation.left_to_aten}


def test_an_index_outside_is_eagers_error():
    """Nothing is written, and the call raises."""
    x, i = torch.randn(5, 5), torch.randint(0, 5, (3, 5))
    compiled = torch_aio.compile(Of(lambda x, i: x.scatter_add(0, i, x)), (x, i))
    with torch.no_grad(), pytest.raises(IndexError):
        compiled(x, i + 5)
