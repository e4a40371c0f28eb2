"""A chain over an index space of any strided operands: elementwise operators, casts, copies.

The last dimension is the inner loop; the access of each input in the chain says how it varies there
(full, scalar, strided). All other dimensions are run-time sizes and byte strides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.types import Value, bf16, f32, i16, vec
from torch_aio.kernels import chain as chains
from torch_aio.kernels.chain import Chain, Input, itemsize
from torch_aio.kernels.spec import KernelSpec

UNROLL = 4
"""Vectors at once where memory is the bound; chains with polynomials gain nothing from a second."""


@dataclass(frozen=True)
class ElementwiseSpec(KernelSpec):
    """y[i...] = chain(x0[i...], x1[i...], ...) for an index of ``rank`` dimensions.

    Parameters: ``n<d>`` sizes; ``y`` and ``x<j>`` with byte strides ``y_<d>``, ``x<j>_<d>`` (last
    dimension: only where strided); ``rows`` and ``cols``, the tile: a unit is ``rows`` of the last
    but one dimension (if there is one) times ``cols`` of the last.
    Units: n0 * ... * ceil(n[-2] / rows) * ceil(n[-1] / cols).
    ``output`` is the access of y: full or strided.
    """

    chain: Chain
    rank: int
    output: str = "full"

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The parameters for the chain's inputs."""
        sizes = [f"n{d}:int" for d in range(self.rank)]
        operands = [("y", self.output), *((f"x{j}", i.access) for j, i in enumerate(self.inputs))]
        words = []
        for name, access in operands:
            last = self.rank if access == "strided" else self.rank - 1
            words += [f"{name}:ptr", *(f"{name}_{d}:int" for d in range(last))]
        rows = ["rows:int"] if self.rank > 1 else []
        return Params(" ".join([*sizes, *words, *rows, "cols:int"]))

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The chain's inputs."""
        return self.chain.inputs

    @property
    def name(self) -> str:
        """``elementwise_f32_3d_gelu_1a2b3c4d5e``."""
        form = "_strided" if self.output == "strided" else ""
        name = self.chain.name or f"copy_{self.inputs[0].access}"
        return f"elementwise_{self.chain.result}_{self.rank}d{form}_{name}"

    def emit(self, k: Builder) -> None:
        """Unit by unit, row by row."""
        with k.loop(k.begin, k.end) as unit:
            first, index = self._place(k, unit.i)
            pointers = [self._pointer(k, n, index) for n in self._names]
            count = k.min(k.p.cols, k.sub(self._size(k, self.rank - 1), first))
            if self.rank == 1:
                self._row(k, pointers, first, count)
            else:
                self._rows(k, pointers, index[-1], first, count)

    def _rows(
        self, k: Builder, pointers: list[Value], start: Size, first: Size, count: Size
    ) -> None:
        stop = k.min(self._size(k, self.rank - 2), k.add(start, k.p.rows))
        with k.loop(0, k.sub(stop, start)) as row:
            moved = [
                k.at(p, k.mul(row.i, self._stride(k, n, self.rank - 2)))
                for p, n in zip(pointers, self._names, strict=True)
            ]
            self._row(k, moved, first, count)

    # ---- addresses ------------------------------------------------------------------------

    @property
    def _names(self) -> list[str]:
        return ["y", *(f"x{j}" for j in range(len(self.inputs)))]

    def _size(self, k: Builder, d: int) -> Value:
        size: Value = getattr(k.p, f"n{d}")
        return size

    def _stride(self, k: Builder, name: str, d: int) -> Value:
        stride: Value = getattr(k.p, f"{name}_{d}")
        return stride

    def _place(self, k: Builder, unit: Size) -> tuple[Size, list[Size]]:
        """The first column of a unit, and its index in the other dimensions (first row last)."""
        p, last = k.p, self.rank - 1
        blocks = k.ceil_div(self._size(k, last), p.cols)
        first, rest = k.mul(k.urem(unit, blocks), p.cols), k.udiv(unit, blocks)
        index: list[Size] = []
        for d in range(last - 1, -1, -1):
            extent: Size = self._size(k, d)
            if d == last - 1:
                extent = k.ceil_div(extent, p.rows)
            at = k.urem(rest, extent) if d else rest
            rest = k.udiv(rest, extent) if d else rest
            index.insert(0, k.mul(at, p.rows) if d == last - 1 else at)
        return first, index

    def _pointer(self, k: Builder, name: str, index: Sequence[Size]) -> Value:
        base: Value = getattr(k.p, name)
        return k.at(base, *(k.mul(i, self._stride(k, name, d)) for d, i in enumerate(index)))

    # ---- the inner loop -------------------------------------------------------------------

    def _row(self, k: Builder, pointers: list[Value], first: Size, count: Size) -> None:
        row = Row(self, k, pointers, first)
        lanes = k.isa.lanes(f32)
        unroll = UNROLL if self.chain.is_cheap else 1
        main = k.op("and", k.size(count), k.size(-lanes * unroll))
        with k.loop(0, main, lanes * unroll) as l:
            row.compute([k.add(l.i, u * lanes) for u in range(unroll)], lanes)
        if self._is_maskable(k):
            with k.loop(main, count, lanes) as l:
                row.compute([l.i], lanes, k.tail_mask(k.sub(count, l.i), lanes))
            return
        if unroll > 1:
            single = k.op("and", k.size(count), k.size(-lanes))
            with k.loop(main, single, lanes) as l:
                row.compute([l.i], lanes)
            main = single
        with k.loop(main, count) as l:
            row.compute([l.i], 0)

    def _is_maskable(self, k: Builder) -> bool:
        accesses = {self.output, *(i.access for i in self.inputs)}
        types = [self.chain.result, *(i.dtype for i in self.inputs if i.access == "full")]
        return "strided" not in accesses and chains.masks_are_fast(k.isa, types)


class Row:
    """One stretch of the inner loop: operands that do not vary are loaded once."""

    def __init__(
        self, spec: ElementwiseSpec, k: Builder, pointers: list[Value], first: Size
    ) -> None:
        self.spec, self.k = spec, k
        last = spec.rank - 1
        self.pointers, self.strides, self.fixed = [], [], []
        accesses = [spec.output, *(i.access for i in spec.inputs)]
        dtypes = [spec.chain.result, *(i.dtype for i in spec.inputs)]
        for name, pointer, access, dtype in zip(
            spec._names, pointers, accesses, dtypes, strict=True
        ):
            strided = access == "strided"
            step: Size = spec._stride(k, name, last) if strided else itemsize(dtype)
            step = 0 if access == "scalar" else step
            self.pointers.append(k.at(pointer, k.mul(first, step)))
            self.strides.append(step)
            fixed = chains.load_scalar(k, dtype, 0, pointer) if access == "scalar" else None
            self.fixed.append(fixed)

    def compute(self, columns: Sequence[Size], lanes: int, mask: Value | None = None) -> None:
        """The results of ``lanes`` columns (0: one) from each of ``columns``; loads come first."""
        loaded = [
            [self._load(j + 1, i, column, lanes, mask) for j, i in enumerate(self.spec.inputs)]
            for column in columns
        ]
        for column, inputs in zip(columns, loaded, strict=True):
            result = self.spec.chain.emit(self.k, inputs)
            if lanes and not result.type.lanes:
                result = self.k.splat(result, lanes)
            self._store(result, column, mask)

    def _load(self, n: int, source: Input, column: Size, lanes: int, mask: Value | None) -> Value:
        k, fixed = self.k, self.fixed[n]
        if fixed is not None:
            return k.splat(fixed, lanes)
        where = k.at(self.pointers[n], k.mul(column, self.strides[n]))
        if source.access == "full" or not lanes:
            return chains.load(k, source.dtype, lanes, where, mask=mask)
        return gather(k, source.dtype, lanes, where, self.strides[n])

    def _store(self, result: Value, column: Size, mask: Value | None) -> None:
        k, stride = self.k, self.strides[0]
        where = k.at(self.pointers[0], k.mul(column, stride))
        if self.spec.output == "full" or not result.type.lanes:
            chains.store(k, result, where, mask=mask)
            return
        if result.type.scalar == bf16:
            result = k.bitcast(result, vec(i16, result.type.lanes))
        for lane in range(result.type.lanes):
            chains.store(k, k.extract(result, lane), k.at(where, k.mul(stride, lane)))


def gather(k: Builder, dtype: str, lanes: int, base: Value, stride: Size) -> Value:
    """A vector of elements ``stride`` bytes apart."""
    element = chains.MEMORY.get(dtype, chains.TYPES[dtype])
    value = k.lanes_const(element, [0] * lanes)
    for lane in range(lanes):
        value = k.insert(value, k.load(element, base, k.mul(stride, lane)), lane)
    if dtype == "bf16":
        return k.bitcast(value, vec(bf16, lanes))
    return k.icmp("ne", value, 0) if dtype == "bool" else value
