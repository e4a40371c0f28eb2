"""The one Python function in front of a compiled program: binds, checks, reads weights, calls.

An exported program has no guards of Dynamo's. What stands in their place is generated from the
leaves of its arguments, because interpreting them would cost more than a small network. For
``f(x)`` with ``x: f32[n, 4]``, n dynamic, and a linear layer's two weights::

    def enter(*args, **kwargs):
        if m0['fc'] is not k0:
            return renew()(*args, **kwargs)
        if kwargs or len(args) != 1:
            args = flatten(args, kwargs)
        x0, = args
        if type(x0) not in tensors or x0.dtype is not t0 or not x0.is_cpu or ...:
            reject(args)
        n0 = x0.shape
        s77 = n0[0]
        if n0[1] != 4:
            reject(args)
        if (s77,) not in admitted:
            admit(args, (s77,))
        if not x0.is_contiguous() or x0.is_neg():
            x0 = relaid(x0, (4, 1))
        return run(s77, x0, d0['weight'], d0['bias'])[0]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from torch_aio.capture.signature import TENSORS, Leaf, Root, Signature
from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Expr, source


@dataclass
class Entrance:
    """What ``enter`` is generated from.

    ``roots``: where each symbol is read, in the order the program takes them. ``weights``: the
    (dict, key) of each live tensor; ``modules``: (dict, key, module) of each submodule on the way
    to one, so that a replaced module is noticed. ``updated``: indices of weights that a call
    updates. ``namespace`` has run, eager, flatten, reject, admit, renew and unflatten.
    """

    signature: Signature
    roots: dict[str, Root]
    weights: Sequence[tuple[dict[str, Any], str]]
    modules: Sequence[tuple[dict[str, Any], str, Any]]
    updated: Sequence[int]
    result: str
    namespace: dict[str, Any]
    _dicts: dict[int, str] = field(default_factory=dict)

    def build(self) -> Callable[..., Any]:
        """Generate and return ``enter``."""
        self.namespace |= {"tensors": TENSORS, "strided": torch.strided}
        self.namespace |= {"relaid": _relaid, "share_memory": _share_memory}
        text = "\n    ".join(["def enter(*args, **kwargs):", *self._lines()])
        exec(compile(text, "<torch_aio entrance>", "exec"), self.namespace)  # noqa: S102 - our text
        enter: Callable[..., Any] = self.namespace["enter"]
        enter.__doc__ = text
        return enter

    def _lines(self) -> Iterator[str]:
        leaves = self.signature.leaves
        yield from self._known_modules()
        if self.signature.flat:
            yield f"if kwargs or len(args) != {len(leaves)}:"
            yield "    args = flatten(args, kwargs)"
        else:
            yield "args = flatten(args, kwargs)"
        if leaves:
            yield "".join(f"x{i}, " for i in range(len(leaves))) + "= args"
            yield f"if {' or '.join(self._types(leaves))}:"
            yield "    reject(args)"
        yield from self._sizes(leaves)
        yield from self._layouts(leaves)
        yield f"outputs = {'call' if self._may_divert else 'run'}({', '.join(self._arguments())})"
        yield f"return {self.result}"

    @property
    def _may_divert(self) -> bool:
        return bool(self.updated) or any(leaf.pinned for leaf in self.signature.leaves)

    def _known_modules(self) -> Iterator[str]:
        changed = []
        for i, (parent, key, module) in enumerate(self.modules):
            self.namespace[f"k{i}"] = module
            changed.append(f"{self._read(parent, key)} is not k{i}")
        if changed:
            yield f"if {' or '.join(changed)}:"
            yield "    return renew()(*args, **kwargs)"

    def _types(self, leaves: Sequence[Leaf]) -> Iterator[str]:
        for i, leaf in enumerate(leaves):
            if not isinstance(leaf.value, TensorSpec):
                self.namespace[f"c{i}"] = leaf.mismatch
                yield f"c{i}(x{i})"
                continue
            self.namespace[f"t{i}"] = leaf.value.dtype
            yield f"type(x{i}) not in tensors or x{i}.dtype is not t{i} or not x{i}.is_cpu"
            yield f"x{i}.layout is not strided"
            if any(isinstance(size, Expr) for size in leaf.value.shape):
                yield f"len(x{i}.shape) != {leaf.value.ndim}"
            else:
                yield f"x{i}.shape != {leaf.value.shape}"

    def _sizes(self, leaves: Sequence[Leaf]) -> Iterator[str]:
        dynamic = {
            i: leaf.value.shape
            for i, leaf in enumerate(leaves)
            if isinstance(leaf.value, TensorSpec)
            and any(isinstance(size, Expr) for size in leaf.value.shape)
        }
        for i in dynamic:
            yield f"n{i} = x{i}.shape"
        for name, root in self.roots.items():
            read = f"x{root.leaf}" if root.dimension is None else f"n{root.leaf}[{root.dimension}]"
            value = read if root.plain else f"({read} - {root.addend}) // {root.factor}"
            yield f"{name} = {value}"
        plain = {(root.leaf, root.dimension) for root in self.roots.values() if root.plain}
        wrong = [
            f"n{i}[{j}] != {source(size)}"
            for i, shape in dynamic.items()
            for j, size in enumerate(shape)
            if (i, j) not in plain
        ]
        if wrong:
            yield f"if {' or '.join(wrong)}:"
            yield "    reject(args)"
        if self.roots:
            key = "(" + "".join(f"{name}, " for name in self.roots) + ")"
            yield f"if {key} not in admitted:"
            yield f"    admit(args, {key})"

    def _layouts(self, leaves: Sequence[Leaf]) -> Iterator[str]:
        if self._may_divert:
            yield "call = run"
        for i, leaf in enumerate(leaves):
            if not isinstance(leaf.value, TensorSpec):
                continue
            strides = "(" + "".join(f"{source(s)}, " for s in leaf.value.stride) + ")"
            other = f"x{i}.stride() != {strides}"
            if leaf.value.is_contiguous:
                other = f"not x{i}.is_contiguous()"
            if leaf.value.dtype.is_floating_point:
                other += f" or x{i}.is_neg()"
            yield f"if {other}:"
            yield "    call = eager" if leaf.pinned else f"    x{i} = relaid(x{i}, {strides})"
        updated = [f"x{i}" for i, leaf in enumerate(leaves) if leaf.pinned]
        updated += [self._read(*self.weights[i]) for i in self.updated]
        if updated:
            others = [
                f"x{i}"
                for i, leaf in enumerate(leaves)
                if isinstance(leaf.value, TensorSpec) and not leaf.pinned
            ]
            yield f"if share_memory({', '.join(updated + others)}):"
            yield "    call = eager"

    def _arguments(self) -> Iterator[str]:
        yield from self.roots
        for i, leaf in enumerate(self.signature.leaves):
            if isinstance(leaf.value, TensorSpec):
                yield f"x{i}"
        for parent, key in self.weights:
            yield self._read(parent, key)

    def _read(self, parent: dict[str, Any], key: str) -> str:
        name = self._dicts.setdefault(id(parent), f"d{len(self._dicts)}")
        self.namespace[name] = parent
        return f"{name}[{key!r}]"


def _relaid(tensor: torch.Tensor, strides: tuple[int, ...]) -> torch.Tensor:
    """A copy that lies in memory as the program was compiled for."""
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype).copy_(tensor)


def _share_memory(*tensors: torch.Tensor) -> bool:
    """Whether two of the tensors share a storage."""
    storages = {tensor.untyped_storage()._cdata for tensor in tensors}
    return len(storages) != len(tensors)
