"""The arguments of an exported program: their structure, and what each leaf must be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from torch_aio.errors import CaptureError, InputError
from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Expr, Int, source, symbols_of

TENSORS = frozenset({torch.Tensor, torch.nn.Parameter})


@dataclass(frozen=True)
class Leaf:
    """One flat argument: its name in messages (``batch['mask']``) and what it must be.

    ``value`` is a TensorSpec, a symbolic size, or the constant that the program was made for.
    ``pinned``: the call updates or returns this very tensor, so no copy may stand in for it.
    """

    name: str
    value: Any
    pinned: bool = False

    @property
    def passed(self) -> bool:
        """Whether the program receives it: constants are in the program already."""
        return isinstance(self.value, (TensorSpec, Expr))

    def mismatch(self, given: Any) -> str | None:
        """Why ``given`` does not fit whatever the symbols are, as a sentence, or None."""
        if isinstance(self.value, TensorSpec):
            return self._tensor_mismatch(given, self.value)
        if isinstance(self.value, Expr):
            fits = type(given) is int
            return None if fits else f"expected an int, got {type(given).__name__}"
        if type(given) is type(self.value) and given == self.value:
            return None
        return f"expected the constant {self.value!r} it was compiled for, got {given!r}"

    @staticmethod
    def _tensor_mismatch(given: Any, spec: TensorSpec) -> str | None:
        if type(given) not in TENSORS:
            return f"expected a torch.Tensor, got {type(given).__name__}"
        if given.dtype is not spec.dtype:
            return f"expected dtype {spec.dtype}, got {given.dtype}"
        if not given.is_cpu or given.layout is not torch.strided:
            return f"expected a dense CPU tensor, got {given.layout} on {given.device}"
        if given.dim() != spec.ndim:
            return f"expected {spec.ndim} dimensions {_shape(spec)}, got {tuple(given.shape)}"
        for size, expected in zip(given.shape, spec.shape, strict=True):
            if isinstance(expected, int) and size != expected:
                return f"expected the shape {_shape(spec)}, got {tuple(given.shape)}"
        return None


@dataclass(frozen=True)
class Signature:
    """The arguments of a program: their names and structures, and their leaves in flat order."""

    names: tuple[str, ...]
    positional: int
    structures: tuple[pytree.TreeSpec, ...]
    leaves: tuple[Leaf, ...]

    @property
    def flat(self) -> bool:
        """Whether every argument is one leaf."""
        return all(structure.is_leaf() for structure in self.structures)

    def flatten(self, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
        """The leaves of a call, by position and by keyword; InputError where they do not fit."""
        if len(args) > len(self.names):
            raise InputError(f"expected at most {len(self.names)} arguments, got {len(args)}")
        given = dict(zip(self.names, args, strict=False))
        for name, value in kwargs.items():
            if name not in self.names:
                valid = ", ".join(self.names)
                raise InputError(f"unexpected argument {name!r}; the arguments are: {valid}")
            if name in given:
                raise InputError(f"argument {name!r} is given twice")
            given[name] = value
        leaves: list[Any] = []
        for name, structure in zip(self.names, self.structures, strict=True):
            if name not in given:
                raise InputError(f"missing argument {name!r}")
            found, shape = pytree.tree_flatten(given[name])
            if shape != structure:
                reason = f"expected the structure {structure}, got {shape}"
                raise InputError(f"argument {name!r}: {reason}")
            leaves += found
        return leaves

    def reject(self, given: Sequence[Any]) -> None:
        """Raise InputError for the first leaf that does not fit (return if each fits by itself)."""
        for leaf, value in zip(self.leaves, given, strict=True):
            reason = leaf.mismatch(value)
            if reason:
                raise InputError(f"argument {leaf.name}: {reason}")
        self._reject_sizes(given)

    def _reject_sizes(self, given: Sequence[Any]) -> None:
        sizes: dict[Int, tuple[int, str]] = {}
        for leaf, value in zip(self.leaves, given, strict=True):
            if isinstance(leaf.value, TensorSpec):
                for expected, size in zip(leaf.value.shape, value.shape, strict=True):
                    first, name = sizes.setdefault(expected, (size, leaf.name))
                    if size != first:
                        raise InputError(
                            f"argument {leaf.name}: expected the shape {_shape(leaf.value)} with "
                            f"{source(expected)} = {first} as in {name}, got {tuple(value.shape)}"
                        )
        shapes = ", ".join(
            f"{leaf.name} {tuple(value.shape)} for {_shape(leaf.value)}"
            for leaf, value in zip(self.leaves, given, strict=True)
            if isinstance(leaf.value, TensorSpec)
        )
        raise InputError(f"the sizes do not fit together: {shapes}")


@dataclass(frozen=True)
class Root:
    """Where a symbol is read: a leaf's dimension (None: an int) is factor * symbol + addend."""

    leaf: int
    dimension: int | None
    factor: int = 1
    addend: int = 0

    @property
    def plain(self) -> bool:
        """Whether the size is the symbol itself."""
        return (self.factor, self.addend) == (1, 0)


def roots_of(leaves: Sequence[Leaf]) -> dict[str, Root]:
    """A root for each symbol; CaptureError for one that no argument gives."""
    found: dict[str, Root] = {}
    needed: set[str] = set()
    for i, leaf in enumerate(leaves):
        sizes: list[tuple[int | None, Int]] = []
        if isinstance(leaf.value, TensorSpec):
            sizes = list(enumerate(leaf.value.shape))
        elif isinstance(leaf.value, Expr):
            sizes = [(None, leaf.value)]
        for dimension, size in sizes:
            needed |= symbols_of(size)
            linear = _linear(size)
            if linear is not None:
                name, factor, addend = linear
                root = Root(i, dimension, factor, addend)
                if name not in found or (root.plain and not found[name].plain):
                    found[name] = root
    if needed - set(found):
        raise CaptureError(f"no argument gives the size {', '.join(sorted(needed - set(found)))}")
    return found


def _linear(size: Int) -> tuple[str, int, int] | None:
    """(symbol, factor, addend) of ``factor * symbol + addend``."""
    if isinstance(size, int):
        return None
    name, factor, addend = "", 0, 0
    for monomial, coefficient in size.terms:
        if not monomial:
            addend = coefficient
        elif len(monomial) == 1 and monomial[0].op == "symbol" and not name:
            name, factor = str(monomial[0].args[0]), coefficient
        else:
            return None
    return (name, factor, addend) if name and factor > 0 else None


def _shape(spec: TensorSpec) -> str:
    return "(" + ", ".join(source(size) for size in spec.shape) + ")"
