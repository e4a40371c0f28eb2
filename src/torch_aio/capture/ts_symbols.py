"""Symbolic sizes of a call: which dimensions vary, and what their strides are then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from torch_aio.ir.shapes import spec_of
from torch_aio.ir.spec import TensorSpec, contiguous_stride
from torch_aio.ir.symbols import Expr, Guards, Int, evaluate, source, symbol

PRIMES = (5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97)
Sizes = tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]


@dataclass
class Symbols:
    """The arguments' specs with symbols for the dimensions that vary between calls.

    ``owners`` maps a symbol to the (tensor, dimension) it is read from. Sizes 0 and 1 are never
    symbolic: they broadcast and vanish.
    """

    specs: list[TensorSpec]
    ints: list[Int]
    owners: dict[str, tuple[int, int]]
    values: dict[str, int]
    guards: Guards = field(default_factory=lambda: Guards({}))

    def env(self, tensors: Sequence[torch.Tensor], ints: Sequence[int]) -> dict[str, int]:
        """The values of the symbols in a call."""
        env = {name: int(tensors[i].shape[d]) for name, (i, d) in self.owners.items()}
        for known, value in zip(self.ints, ints, strict=True):
            if isinstance(known, Expr):
                env[source(known)] = value
        return env

    def admits(self, tensors: Sequence[torch.Tensor], ints: Sequence[int]) -> bool:
        """Whether a call with these arguments takes the decisions that the trace took."""
        env = self.env(tensors, ints)
        if any(env[name] < 2 for name in self.owners):
            return False
        expected, actual = list(self.ints), list(ints)
        for spec, tensor in zip(self.specs, tensors, strict=True):
            expected += (*spec.shape, *spec.stride)
            actual += (*tensor.shape, *tensor.stride())
        same = all(evaluate(e, env) == a for e, a in zip(expected, actual, strict=True))
        return same and self.guards.holds(env)

    def hints(self) -> list[dict[str, int]]:
        """Example sizes to decide by: first ones that equal no other size by accident.

        A length that happens to be as large as the number of heads would otherwise be taken for
        it. All sizes are shifted alike, so that relations such as ``n + 1`` survive.
        """
        fixed = {s for spec in self.specs for s in spec.shape if isinstance(s, int)}
        sizes = {name: self.values[name] for name in self.owners}
        smallest = min(sizes.values(), default=PRIMES[-1])
        for prime in PRIMES:
            moved = {name: size - smallest + prime for name, size in sizes.items()}
            if prime > smallest and not fixed & set(moved.values()):
                moved = {**self.values, **moved}
                return [moved, dict(self.values)]
        return [dict(self.values)]


def symbolic(
    tensors: Sequence[torch.Tensor], ints: Sequence[int], seen: Sequence[Sizes]
) -> Symbols | None:
    """Symbols for every size and int that differs from one ``seen``; None if none can be one."""
    owners: dict[str, tuple[int, int]] = {}
    values: dict[str, int] = {}
    names: dict[tuple[int, ...], Expr] = {}
    specs = []
    for i, tensor in enumerate(tensors):
        shape: list[Int] = list(tensor.shape)
        for d, size in enumerate(tensor.shape):
            history = (size, *(shapes[i][d] for shapes, _ in seen))
            if size < 2 or len(set(history)) == 1:
                continue
            if history not in names:
                name = f"s{len(names)}"
                names[history] = symbol(name)
                owners[name], values[name] = (i, d), size
            shape[d] = names[history]
        spec = _strided(tensor, tuple(shape))
        if spec is None:
            return None
        specs.append(spec)
    wholes: list[Int] = list(ints)
    for i, value in enumerate(ints):
        if any(before[i] != value for _, before in seen):
            wholes[i], values[f"i{i}"] = symbol(f"i{i}"), value
    return Symbols(specs, wholes, owners, values) if values else None


def sizes_of(tensors: Sequence[torch.Tensor], ints: Sequence[int]) -> Sizes:
    """What of a call may become symbolic."""
    return tuple(tuple(t.shape) for t in tensors), tuple(ints)


def _strided(tensor: torch.Tensor, shape: tuple[Int, ...]) -> TensorSpec | None:
    """The tensor's strides in terms of its symbolic shape; None where no rule explains them."""
    spec = spec_of(tensor)
    if shape == spec.shape and not any(isinstance(s, Expr) for s in shape):
        return spec
    order = sorted(range(len(shape)), key=lambda d: (-spec.stride[d], d))
    for dims in (range(len(shape)), order):
        permuted = contiguous_stride(tuple(shape[d] for d in dims))
        known = contiguous_stride(tuple(spec.shape[d] for d in dims))
        if known == tuple(spec.stride[d] for d in dims):
            stride: list[Int] = [0] * len(shape)
            for d, step in zip(dims, permuted, strict=True):
                stride[d] = step
            return TensorSpec(shape, spec.dtype, tuple(stride))
    return TensorSpec(shape, spec.dtype, spec.stride)
