"""Symbolic sizes of a call: which dimensions vary, and what their strides are then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from torch_aio.ir.shapes import spec_of
from torch_aio.ir.spec import TensorSpec, contiguous_stride
from torch_aio.ir.symbols import Expr, Guards, Int, evaluate, symbol

PRIMES = (5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97)
Shapes = tuple[tuple[int, ...], ...]


@dataclass
class Symbols:
    """The arguments' specs with symbols for the dimensions that vary between calls.

    ``owners`` maps a symbol to the (tensor, dimension) it is read from. Sizes 0 and 1 are never
    symbolic: they broadcast and vanish.
    """

    specs: list[TensorSpec]
    owners: dict[str, tuple[int, int]]
    values: dict[str, int]
    guards: Guards = field(default_factory=lambda: Guards({}))

    def admits(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether a call with these tensors takes the decisions that the trace took."""
        env = {name: int(tensors[i].shape[d]) for name, (i, d) in self.owners.items()}
        if any(size < 2 for size in env.values()):
            return False
        for spec, tensor in zip(self.specs, tensors, strict=True):
            expected = (*spec.shape, *spec.stride)
            actual = (*tensor.shape, *tensor.stride())
            if any(evaluate(e, env) != a for e, a in zip(expected, actual, strict=True)):
                return False
        return self.guards.holds(env)

    def hints(self) -> list[dict[str, int]]:
        """Example sizes to decide by: first ones that equal no other size by accident.

        A length that happens to be as large as the number of heads would otherwise be taken for
        it. All sizes are shifted alike, so that relations such as ``n + 1`` survive.
        """
        fixed = {s for spec in self.specs for s in spec.shape if isinstance(s, int)}
        smallest = min(self.values.values())
        for prime in PRIMES:
            moved = {name: value - smallest + prime for name, value in self.values.items()}
            if prime > smallest and not fixed & set(moved.values()):
                return [moved, dict(self.values)]
        return [dict(self.values)]


def symbolic(tensors: Sequence[torch.Tensor], seen: Sequence[Shapes]) -> Symbols | None:
    """Symbols for every size that differs from a shape ``seen`` before; None if none can be one."""
    owners: dict[str, tuple[int, int]] = {}
    values: dict[str, int] = {}
    names: dict[tuple[int, ...], Expr] = {}
    specs = []
    for i, tensor in enumerate(tensors):
        shape: list[Int] = list(tensor.shape)
        for d, size in enumerate(tensor.shape):
            history = (size, *(shapes[i][d] for shapes in seen))
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
    return Symbols(specs, owners, values) if names else None


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
