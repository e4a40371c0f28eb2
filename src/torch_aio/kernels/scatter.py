"""Elements written where index tensors say: scatter, index_add, index_copy, index_put.

An index outside its dimension is eager's error; nothing outside is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.types import Value
from torch_aio.codegen.vmath.arithmetic import maximum, minimum
from torch_aio.kernels.chain import TYPES
from torch_aio.kernels.gather import checked
from torch_aio.kernels.spec import KernelSpec


@dataclass(frozen=True)
class ScatterSpec(KernelSpec):
    """y[.., index[i..], ..] = op(old[same place], source[i..]) along one dimension, in order of i.

    ``op``: set, add, mul, max or min, in ``dtype``. Parameters: ``n<d>`` sizes of source and index;
    byte strides ``source_<d>``, ``index_<d>`` (0: the same for all), ``y_<d>``; ``size``, y's size
    along ``dim``; ``old``, the memory of y once more: what it was is read, so that the step that
    wrote it comes first; ``error``. Negative indices count from the end where ``wraps``.
    Units: the product of the sizes but ``n<dim>``, so that no two units write one element.
    """

    op: str
    dtype: str
    rank: int
    dim: int
    index: str = "i64"
    wraps: bool = False

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The parameters for the rank."""
        words = [f"n{d}:int source_{d}:int index_{d}:int y_{d}:int" for d in range(self.rank)]
        return Params(" ".join(["source:ptr index:ptr y:ptr old:ptr size:int error:ptr", *words]))

    @property
    def name(self) -> str:
        """``scatter_add_f32_2d_at1_i64``."""
        wraps = "_wraps" if self.wraps else ""
        return f"scatter_{self.op}_{self.dtype}_{self.rank}d_at{self.dim}_{self.index}{wraps}"

    def emit(self, k: Builder) -> None:
        """Lines along ``dim``, an element at a time."""
        p, dim, others = k.p, self.dim, [d for d in range(self.rank) if d != self.dim]
        with k.loop(k.begin, k.end) as unit:
            bases: dict[str, Value] = {n: getattr(p, n) for n in ("source", "index", "y", "old")}
            rest: Size = unit.i
            for d in reversed(others):
                i = k.urem(rest, getattr(p, f"n{d}"))
                rest = k.udiv(rest, getattr(p, f"n{d}"))
                for n, base in bases.items():
                    step = getattr(p, f"{'y' if n == 'old' else n}_{d}")
                    bases[n] = k.at(base, k.mul(i, step))
            with k.loop(0, getattr(p, f"n{dim}")) as l:
                at = k.mul(l.i, getattr(p, f"index_{dim}"))
                raw = k.load(TYPES[self.index], bases["index"], at)
                place, valid = checked(k, raw, p.size, p.error, wraps=self.wraps)
                with k.when(valid):
                    source = k.mul(l.i, getattr(p, f"source_{dim}"))
                    value = k.load(TYPES[self.dtype], bases["source"], source)
                    target = k.mul(place, getattr(p, f"y_{dim}"))
                    k.store(self._joined(k, bases["old"], target, value), bases["y"], target)

    def _joined(self, k: Builder, old: Value, at: Size, value: Value) -> Value:
        if self.op == "set":
            return value
        type_ = TYPES[self.dtype]
        before = k.load(type_, old, at)
        if self.op in ("max", "min"):
            return (maximum if self.op == "max" else minimum)(k, before, value)
        return k.op(f"f{self.op}" if type_.is_float else self.op, before, value)
