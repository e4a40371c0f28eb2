"""Run one kernel now, on tensors: what packs constants."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch

from torch_aio.kernels.spec import KernelSpec, generate
from torch_aio.runtime.machine import Machine


def run_once(machine: Machine, spec: KernelSpec, units: int, **arguments: Any) -> None:
    """Call the kernel over ``units`` work units on the machine's team.

    Pointer arguments are tensors, the others integers; raises KeyError where one is missing.
    """
    block: list[int] = []
    bases: list[int] = []
    for name, kind in spec.params.kinds.items():
        value = arguments[name]
        if isinstance(value, torch.Tensor):
            block += [len(bases), 0]
            bases.append(value.data_ptr())
        else:
            assert kind == "int", f"{name}: {kind}"
            block.append(value)
    kernel = machine.jit.address(spec.name, lambda: generate(spec, machine.isa))
    args, frame = _array(block), _array(bases)
    steps = _array([kernel, ctypes.addressof(args), units, 0])
    team = machine.team.size()
    machine.team.enter(team)
    job = _array([ctypes.addressof(frame), ctypes.addressof(steps), 1, team, 0])
    machine.run(ctypes.addressof(job))


def _array(values: Sequence[int]) -> Any:
    return (ctypes.c_int64 * max(len(values), 1))(*values)
