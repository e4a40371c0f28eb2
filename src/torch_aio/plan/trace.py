"""Elementwise nodes to a chain."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Node

from torch_aio.ir.spec import TensorSpec
from torch_aio.kernels.chain import DTYPES, Access, Chain, Const, Input, Step


@dataclass(frozen=True)
class Result:
    """The result of step ``index`` of a chain under construction (inputs are numbered apart)."""

    index: int


@dataclass(frozen=True)
class Operand:
    """Input ``index`` of a chain under construction."""

    index: int


Ref = Result | Operand | Const


@dataclass
class ChainTrace:
    """A chain under construction: ``inputs`` are graph nodes (None: the accumulator), in order."""

    inputs: list[Node | None] = field(default_factory=list)
    dtypes: list[str] = field(default_factory=list)
    steps: list[tuple[str, tuple[Ref, ...], str]] = field(default_factory=list)
    values: dict[Node, Ref] = field(default_factory=dict)

    def accumulator(self, node: Node, dtype: torch.dtype) -> Ref:
        """Make the accumulator input 0 and the value of ``node``."""
        self.inputs.append(None)
        self.dtypes.append(DTYPES[dtype])
        self.values[node] = Operand(0)
        return self.values[node]

    def value(self, arg: Any) -> Ref:
        """The operand for a node (a new input where no step made it) or a Python number."""
        if isinstance(arg, Node):
            if arg not in self.values:
                spec = arg.meta["spec"]
                assert isinstance(spec, TensorSpec), f"{arg} is no tensor"
                self.values[arg] = self.input(arg, spec.dtype)
            return self.values[arg]
        return Const(arg)

    def input(self, node: Node, dtype: torch.dtype) -> Ref:
        """A new operand read from the value of ``node``."""
        self.inputs.append(node)
        self.dtypes.append(DTYPES[dtype])
        return Operand(len(self.inputs) - 1)

    def step(self, op: str, args: tuple[Any, ...], dtype: torch.dtype) -> Ref:
        """Append ``op`` computed in ``dtype``; args are nodes, numbers or earlier results."""
        refs = tuple(a if isinstance(a, (Result, Operand, Const)) else self.value(a) for a in args)
        self.steps.append((op, refs, DTYPES[dtype]))
        return Result(len(self.steps) - 1)

    def chain(self, accesses: list[Access]) -> Chain:
        """The finished chain; ``accesses`` says how each input varies."""
        first = len(self.inputs)

        def number(ref: Ref) -> int | Const:
            if isinstance(ref, Const):
                return ref
            return ref.index if isinstance(ref, Operand) else first + ref.index

        return Chain(
            tuple(Input(d, a) for d, a in zip(self.dtypes, accesses, strict=True)),
            tuple(Step(op, tuple(map(number, refs)), d) for op, refs, d in self.steps),
        )
