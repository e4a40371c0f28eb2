"""PyTorch's own samples of operators (OpInfo), run through the engine one by one."""

from __future__ import annotations

import sys
import types
import unittest
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from accuracy import assert_close, run, widened
from torch_aio.engine.compiled import CompiledGraph, observed

if "expecttest" not in sys.modules:  # PyTorch's test tools import it; samples do not need it
    stand_in: Any = types.ModuleType("expecttest")
    stand_in.TestCase = unittest.TestCase
    sys.modules["expecttest"] = stand_in

SEED = 7


@dataclass(frozen=True)
class Sample:
    """One call of an operator: the arguments as a flat list and their structure."""

    name: str
    op: Any
    leaves: tuple[Any, ...]
    tree: Any

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors among the arguments."""
        return tuple(x for x in self.leaves if isinstance(x, Tensor))

    @property
    def kind(self) -> tuple[Any, ...]:
        """What a kernel may depend on: ranks, emptiness, and all that is no tensor."""
        return tuple(
            (x.ndim, x.numel() == 0, x.is_contiguous(), x.dtype) if isinstance(x, Tensor) else x
            for x in map(_plain, self.leaves)
        )

    def __str__(self) -> str:
        shown = (f"{x.dtype}{tuple(x.shape)}" if isinstance(x, Tensor) else x for x in self.leaves)
        return f"{self.name}({', '.join(map(str, shown))})"


def _plain(value: Any) -> Any:
    return value if isinstance(value, Tensor) else repr(value)


class Call(nn.Module):
    """A sample as a module of its tensors; the tensors among its answers as a tuple."""

    def __init__(self, sample: Sample) -> None:
        super().__init__()
        self.sample = sample

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The operator on these tensors in place of the sample's."""
        given = iter(tensors)
        leaves = [next(given) if isinstance(x, Tensor) else x for x in self.sample.leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self.sample.tree)
        found = pytree.tree_leaves(self.sample.op(*args, **kwargs))
        return tuple(x for x in found if isinstance(x, Tensor))


class Weighted(nn.Module):
    """A call whose tensors after the first are the module's own, as weights are."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call
        for n, x in enumerate(call.sample.tensors[1:]):
            self.register_buffer(f"w{n}", x)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The operator on another first tensor."""
        return self.call(x, *self.buffers())


@dataclass
class Tally:
    """What became of samples: how many ran, how many wholly on our kernels, why not the others."""

    ran: int = 0
    ours: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def add(self, reasons: Iterable[str]) -> None:
        """One more sample, with the sentences of the nodes that PyTorch ran."""
        given = set(reasons)
        self.ran += 1
        self.ours += not given
        for reason in given:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1


def samples(name: str, dtypes: Iterable[torch.dtype]) -> Iterator[Sample]:
    """The samples of every variant of an operator in the dtypes that it has."""
    from torch.testing._internal.common_methods_invocations import op_db  # takes 4 s

    found = [op for op in op_db if op.name == name]
    assert found, f"PyTorch has no samples of {name}"
    for op in found:
        for dtype in dtypes:
            if dtype in op.supported_dtypes("cpu"):
                torch.manual_seed(SEED)
                for s in op.sample_inputs("cpu", dtype, requires_grad=False):
                    leaves, tree = pytree.tree_flatten(((s.input, *s.args), s.kwargs))
                    yield Sample(name, op.op, tuple(leaves), tree)


def distinct(given: Iterable[Sample], most: int) -> list[Sample]:
    """At most so many samples, spread over those that differ in more than sizes; none random."""
    kinds = list({s.kind: s for s in given if not _has_dropout(s)}.values())
    step = -(-len(kinds) // most) if kinds else 1
    return kinds[::step]


def _has_dropout(sample: Sample) -> bool:
    is_attention = sample.name.endswith("attention")
    return is_attention and any(isinstance(x, float) and x > 0 for x in sample.leaves)


def check(sample: Sample, tally: Tally) -> None:
    """Run one sample through a frozen trace, compare with fp64 and eager, and count it."""
    call, tensors = Call(sample).eval(), sample.tensors
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the operators' own, of deprecated arguments
        torch.manual_seed(SEED)
        eager, again = run(call, tensors), run(call, tensors)
        if not eager or not tensors or not _equal(eager, again):
            return  # no tensors, or random ones
        has_weights = "conv" in sample.name or "batch_norm" in sample.name
        model, inputs = (Weighted(call), tensors[:1]) if has_weights else (call, tensors)
        traced = _traced(model.eval(), inputs)
        if traced is None:
            return
        try:
            with observed() as graphs, torch.no_grad():
                ours = torch.jit.freeze(traced)(*inputs)
        except RuntimeError as error:
            if "data-dependent shape" not in str(error):
                raise
            tally.add(["a mask has a data-dependent shape"])
            return
        wide = reference(call, tensors, eager)
    ours = (ours,) if isinstance(ours, Tensor) else ours
    assert_close(ours, wide, eager, str(sample))
    tally.add(reasons(graphs))


def _traced(model: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """The model traced; None where TorchScript has no such call (a bool for a number)."""
    try:
        return torch.jit.trace(model, inputs, check_trace=False)
    except RuntimeError as error:
        if "We don't have an op for" not in str(error):
            raise
        return None


def _equal(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in zip(a, b, strict=True))


def reference(call: Call, tensors: tuple[Tensor, ...], eager: Any) -> Any:
    """The answers in fp64; eager's own where the operator does not take it."""
    try:
        wide = run(call, tuple(map(widened, tensors)))
    except RuntimeError:
        return eager
    floats = all(
        a.is_floating_point() == b.is_floating_point() for a, b in zip(wide, eager, strict=True)
    )
    return wide if floats else eager


def reasons(graphs: Iterable[CompiledGraph]) -> Iterator[str]:
    """The sentence of every node that PyTorch runs; each has one."""
    for graph in graphs:
        for node in graph.variants[-1].gm.graph.nodes:
            verdict = node.meta.get("verdict")
            if verdict is not None and verdict.kind == "aten":
                assert verdict.reason, f"{node.format_node()} is left to PyTorch without a reason"
                yield verdict.reason
