"""Run one kernel on torch tensors, as a step of a plan would."""

from __future__ import annotations

import ctypes
import struct
from functools import lru_cache
from typing import Any

import torch

from torch_aio import cpu
from torch_aio.codegen import isa as isas
from torch_aio.codegen.isa import Isa
from torch_aio.codegen.jit import Jit
from torch_aio.kernels.spec import KernelSpec, generate

_objects: dict[str, bytes] = {}
NAMES = ("avx512", "avx2", "neon")
ISAS = tuple(isa for name in NAMES if (isa := isas.detect(cpu.features(), name)))


@lru_cache
def jit(isa: Isa) -> Jit:
    """One JIT an instruction set, its objects shared by all tests of the process."""
    return Jit(isa, _objects.get, _objects.__setitem__)


def run_kernel(spec: KernelSpec, isa: Isa, units: int, splits: int = 1, **arguments: Any) -> None:
    """Call the kernel over ``units`` work units in ``splits`` ranges.

    A pointer argument is a tensor or (tensor, byte offset); scratch a byte tensor of ``splits``
    equal parts; the rest are numbers. Raises KeyError where an argument is missing.
    """
    block, bases = [], []
    for name, kind in spec.params.kinds.items():
        value = arguments[name]
        if kind in ("ptr", "scratch"):
            tensor, offset = value if isinstance(value, tuple) else (value, 0)
            block += [len(bases), offset]
            bases.append(tensor.data_ptr())
            if kind == "scratch":
                block.append(tensor.numel() * tensor.element_size() // splits)
        elif kind == "float":
            block.append(struct.unpack("<I", struct.pack("<f", value))[0])
        else:
            block.append(int(value))
    address = jit(isa).address(spec.name, lambda: generate(spec, isa))
    args = torch.tensor(block or [0], dtype=torch.int64)
    base = torch.tensor(bases, dtype=torch.int64)
    i64, pointer = ctypes.c_int64, ctypes.c_void_p
    kernel = ctypes.CFUNCTYPE(None, pointer, pointer, i64, i64, i64)(address)
    for n in range(splits):
        begin, end = units * n // splits, units * (n + 1) // splits
        if begin < end:
            kernel(args.data_ptr(), base.data_ptr(), begin, end, n)
