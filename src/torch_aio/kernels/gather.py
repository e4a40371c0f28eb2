"""Elements and rows picked by index tensors, running sums, number sequences.

An index outside its table writes ``OUT_OF_RANGE`` to the error word, which the runtime turns into
eager's IndexError after the call; nothing outside the table is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.types import Type, Value, f32, f64, i8, i16, i32, i64, vec
from torch_aio.kernels.chain import TYPES
from torch_aio.kernels.rows import sweep
from torch_aio.kernels.spec import KernelSpec

OUT_OF_RANGE = 1
"""What the error word receives."""
CARRIERS: dict[int, Type] = {1: i8, 2: i16, 4: i32, 8: i64}
"""Elements are moved as integers of their size."""


def checked(
    k: Builder, index: Value, size: Size, error: Value, *, wraps: bool
) -> tuple[Size, Value]:
    """The index (from the end where negative, if it ``wraps``), and whether it is valid.

    Where it is not, the error word is set and the index is 0.
    """
    wide: Value = k.cast(index, i64)
    if wraps:
        negative = k.icmp("slt", wide, 0)
        wide = k.select(negative, k.op("add", wide, k.size(size)), wide)
    valid = k.icmp("ult", wide, size if isinstance(size, Value) else k.size(size))
    with k.when(k.icmp("eq", valid, 0)):
        k.store(k.const(i64, OUT_OF_RANGE), error)
    return k.select(valid, wide, k.const(i64, 0)), valid


@dataclass(frozen=True)
class GatherRowsSpec(KernelSpec):
    """y[o, r, :] = x[o, i0[r], i1[r], ..., :]: embedding, index_select, index by integer tensors.

    A row is ``width`` elements of ``itemsize`` bytes that lie together. Parameters: ``x`` with
    ``x_outer`` bytes; for each index tensor its pointer ``i<j>``, the table's size ``n<j>`` and
    byte stride ``x_<j>``; ``y`` with ``y_outer`` and ``y_row``; ``count``, the rows r; ``error``.
    ``index`` is the dtype of the (row-major) index tensors; negative indices count from the end
    where ``wraps``. Units: outer * count.
    """

    itemsize: int
    indices: int = 1
    index: str = "i64"
    wraps: bool = False

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The parameters for the index tensors."""
        words = [f"i{j}:ptr n{j}:int x_{j}:int" for j in range(self.indices)]
        fixed = "y:ptr y_outer:int y_row:int count:int width:int error:ptr"
        return Params(" ".join(["x:ptr x_outer:int", *words, fixed]))

    @property
    def name(self) -> str:
        """``gather_rows_4b_1xi64``."""
        wraps = "_wraps" if self.wraps else ""
        return f"gather_rows_{self.itemsize}b_{self.indices}x{self.index}{wraps}"

    def emit(self, k: Builder) -> None:
        """Row by row."""
        p, type_ = k.p, TYPES[self.index]
        with k.loop(k.begin, k.end) as unit:
            outer, row = k.udiv(unit.i, p.count), k.urem(unit.i, p.count)
            x = k.at(p.x, k.mul(outer, p.x_outer))
            valid: Value | None = None
            for j in range(self.indices):
                raw = k.load(type_, getattr(p, f"i{j}"), k.mul(row, type_.bytes))
                index, good = checked(k, raw, getattr(p, f"n{j}"), p.error, wraps=self.wraps)
                x = k.at(x, k.mul(index, getattr(p, f"x_{j}")))
                valid = k.op("and", valid, good) if valid else good
            assert valid is not None
            y = k.at(p.y, k.mul(outer, p.y_outer), k.mul(row, p.y_row))
            with k.when(valid):
                copy_row(k, x, y, p.width, self.itemsize)


def copy_row(k: Builder, x: Value, y: Value, count: Size, itemsize: int) -> None:
    """Copy ``count`` elements that lie together; elements of 1 and 2 bytes end in a scalar loop."""
    lanes, carrier = k.isa.lanes(f32), CARRIERS[itemsize]

    def body(column: Size, mask: Value | None, _: list[Value]) -> list[Value]:
        at = k.mul(column, itemsize)
        if mask:
            k.masked_store(k.masked_load(vec(carrier, lanes), mask, x, at), mask, y, at)
        else:
            k.store(k.load(vec(carrier, lanes), x, at), y, at)
        return []

    if itemsize >= 4:
        sweep(k, 0, count, body)
        return
    whole = k.op("and", k.size(count), k.size(-lanes))
    with k.loop(0, whole, lanes) as l:
        body(l.i, None, [])
    with k.loop(whole, count) as l:
        at = k.mul(l.i, itemsize)
        k.store(k.load(carrier, x, at), y, at)


@dataclass(frozen=True)
class GatherSpec(KernelSpec):
    """y[i...] = x[i..., with i[dim] replaced by index[i...]]: ``gather`` along one dimension.

    Parameters: ``n<d>`` sizes of index and y; byte strides ``x_<d>``, ``index_<d>``, ``y_<d>``;
    ``size``, x's size along ``dim``; ``error``. Negative indices are errors, as in eager.
    Units: n0 * ... * n[rank - 2] (rank 1: one).
    """

    itemsize: int
    rank: int
    dim: int
    index: str = "i64"

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The parameters for the rank."""
        words = [f"n{d}:int x_{d}:int index_{d}:int y_{d}:int" for d in range(self.rank)]
        return Params(" ".join(["x:ptr index:ptr y:ptr size:int error:ptr", *words]))

    @property
    def name(self) -> str:
        """``gather_4b_2d_at1_i64``."""
        return f"gather_{self.itemsize}b_{self.rank}d_at{self.dim}_{self.index}"

    def emit(self, k: Builder) -> None:
        """Rows of the last dimension, an element at a time."""
        p, last, carrier = k.p, self.rank - 1, CARRIERS[self.itemsize]
        names = ("x", "index", "y")
        with k.loop(k.begin, k.end) as unit:
            bases: dict[str, Value] = {n: getattr(p, n) for n in names}
            rest: Size = unit.i
            for d in range(last - 1, -1, -1):
                i: Size = k.urem(rest, getattr(p, f"n{d}")) if d else rest
                rest = k.udiv(rest, getattr(p, f"n{d}")) if d else rest
                for n in names:
                    if (n, d) != ("x", self.dim):
                        bases[n] = k.at(bases[n], k.mul(i, getattr(p, f"{n}_{d}")))
            with k.loop(0, getattr(p, f"n{last}")) as l:
                at = k.mul(l.i, getattr(p, f"index_{last}"))
                raw = k.load(TYPES[self.index], bases["index"], at)
                index, valid = checked(k, raw, p.size, p.error, wraps=False)
                x = k.at(bases["x"], k.mul(index, getattr(p, f"x_{self.dim}")))
                if self.dim != last:
                    x = k.at(x, k.mul(l.i, getattr(p, f"x_{last}")))
                with k.when(valid):
                    target = k.mul(l.i, getattr(p, f"y_{last}"))
                    k.store(k.load(carrier, x), bases["y"], target)


@dataclass(frozen=True)
class CumsumSpec(KernelSpec):
    """y[r, j] = sum of x[r, :j + 1]; floats are summed in f64, as in eager. Units: rows."""

    dtype: str = "f32"
    params = Params("cols:int x:ptr x_row:int x_col:int y:ptr y_row:int y_col:int")

    @property
    def name(self) -> str:
        """``cumsum_f32``."""
        return f"cumsum_{self.dtype}"

    def emit(self, k: Builder) -> None:
        """One running sum a row."""
        p, type_ = k.p, TYPES[self.dtype]
        wide = f64 if type_.is_float else type_
        with k.loop(k.begin, k.end) as unit:
            x, y = (
                k.at(base, k.mul(unit.i, step)) for base, step in ((p.x, p.x_row), (p.y, p.y_row))
            )
            with k.loop(0, p.cols, carry=[k.const(wide, 0)]) as l:
                value = k.cast(k.load(type_, x, k.mul(l.i, p.x_col)), wide)
                total = k.op("fadd" if type_.is_float else "add", l.v[0], value)
                k.store(k.cast(total, type_), y, k.mul(l.i, p.y_col))
                l.next = [total]


@dataclass(frozen=True)
class SequenceSpec(KernelSpec):
    """y[i] = start + i * step in i64, cast to ``dtype``. Units: ceil(count / 1024)."""

    dtype: str = "i64"
    params = Params("y:ptr count:int start:int step:int")

    @property
    def name(self) -> str:
        """``sequence_i64``."""
        return f"sequence_{self.dtype}"

    def emit(self, k: Builder) -> None:
        """An element at a time."""
        p, type_ = k.p, TYPES[self.dtype]
        with k.loop(k.begin, k.end) as unit:
            first = k.mul(unit.i, SEQUENCE_GRAIN)
            with k.loop(first, k.min(p.count, k.add(first, SEQUENCE_GRAIN))) as l:
                value = k.size(k.add(p.start, k.mul(l.i, p.step)))
                k.store(k.cast(value, type_), p.y, k.mul(l.i, type_.bytes))


SEQUENCE_GRAIN = 1024
