"""Kernels that pick elements by index tensors, running sums, sequences."""

from __future__ import annotations

import pytest
import torch

from guarded import guarded
from kernel_runner import ISAS, run_kernel
from torch_aio.kernels.chain import DTYPES
from torch_aio.kernels.gather import (
    OUT_OF_RANGE,
    CumsumSpec,
    GatherRowsSpec,
    GatherSpec,
    SequenceSpec,
)

isas = pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.name)


def rows(isa, table, *indices, wraps=False, fill=0):
    """``table[i, j, ...]`` over the leading dimensions, and the error word."""
    size, shape = table.element_size(), table.shape[len(indices) :]
    width = shape.numel()
    y = guarded(torch.full((*indices[0].shape, *shape), fill, dtype=table.dtype))
    error = torch.zeros(1, dtype=torch.int64)
    arguments = {}
    for j, index in enumerate(indices):
        arguments |= {f"i{j}": index, f"n{j}": table.shape[j], f"x_{j}": table.stride(j) * size}
    spec = GatherRowsSpec(size, len(indices), DTYPES[indices[0].dtype], wraps)
    count = indices[0].numel()
    run_kernel(spec, isa, count, 3, x=table, x_outer=0, **arguments, y=y, y_outer=0,
               y_row=width * size, count=count, width=width, error=error)  # fmt: skip
    return y, int(error)


@isas
@pytest.mark.parametrize("index", [torch.int64, torch.int32], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.float16, torch.bool], ids=str)
def test_rows_of_a_table(isa, dtype, index):
    for n in (1, 7, 16, 17, 64, 65, 130):
        table = guarded((torch.randn(11, n) * 5).to(dtype))
        places = torch.randint(0, 11, (3, 5), dtype=index)
        y, error = rows(isa, table, places)
        assert torch.equal(y, table[places.long()])
        assert error == 0


@isas
@pytest.mark.parametrize("wrong", [-1, 11, 2**40, -(2**63)])
def test_an_index_outside_sets_the_error_word_and_reads_nothing(isa, wrong):
    table, places = guarded(torch.randn(11, 9)), torch.randint(0, 11, (7,))
    places[3] = wrong
    y, error = rows(isa, table, places, fill=5)
    assert error == OUT_OF_RANGE
    assert (y[3] == 5).all()
    assert torch.equal(y[:3], table[places[:3]])


@isas
def test_negative_indices_count_from_the_end_where_they_may(isa):
    table, places = torch.randn(11, 9), torch.randint(-11, 11, (7,))
    y, error = rows(isa, table, places, wraps=True)
    assert torch.equal(y, table[places])
    assert error == 0
    assert rows(isa, table, places - 22, wraps=True)[1] == OUT_OF_RANGE


@isas
def test_several_index_tensors(isa):
    table = torch.randn(4, 5, 6, 7)
    i, j, l = (torch.randint(-n, n, (3, 2)) for n in (4, 5, 6))
    assert torch.equal(rows(isa, table, i, j, wraps=True)[0], table[i, j])
    assert torch.equal(rows(isa, table, i, j, l, wraps=True)[0], table[i, j, l])


@isas
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_gather(isa, dim):
    x = torch.randn(4, 5, 6)
    shape = [3, 4, 5]
    shape[dim] = 9
    index = torch.randint(0, x.shape[dim], shape)
    for source in (x, x.transpose(0, 2).contiguous().transpose(0, 2)):
        y, error = torch.zeros(shape), torch.zeros(1, dtype=torch.int64)
        tensors = {"x": source, "index": index, "y": y}
        arguments = {
            f"{name}_{d}": tensor.stride(d) * tensor.element_size()
            for name, tensor in tensors.items() for d in range(3)
        }  # fmt: skip
        arguments |= {f"n{d}": n for d, n in enumerate(shape)}
        run_kernel(GatherSpec(4, 3, dim), isa, shape[0] * shape[1], 2, **tensors, **arguments,
                   size=x.shape[dim], error=error)  # fmt: skip
        assert torch.equal(y, torch.gather(x, dim, index))
        assert int(error) == 0


@isas
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64], ids=str)
def test_running_sums_equal_eager(isa, dtype):
    x = (torch.randn(4, 101) * 3).to(dtype)
    y, size = torch.zeros_like(x), x.element_size()
    run_kernel(CumsumSpec(DTYPES[dtype]), isa, 4, 2, cols=101, x=x, x_row=101 * size, x_col=size,
               y=y, y_row=101 * size, y_col=size)  # fmt: skip
    assert torch.equal(y, x.cumsum(1))


@isas
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float32], ids=str)
def test_sequences(isa, dtype):
    y = guarded(torch.zeros(2500, dtype=dtype))
    run_kernel(SequenceSpec(DTYPES[dtype]), isa, 3, 2, y=y, count=2500, start=7, step=-3)
    assert torch.equal(y, torch.arange(7, 7 - 7500, -3, dtype=dtype))
