"""Masks of attention over scores that lie [keys][queries]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch_aio.codegen.builder import Builder, Size
from torch_aio.codegen.types import Type, Value, f32, i8, vec
from torch_aio.kernels.pack_gemm import emit_panel

BYTES = 4

MaskKind = Literal["", "float", "bool"]


@dataclass(frozen=True)
class Masking:
    """How scores are masked: by addition, or by ``fill`` where a boolean mask is false.

    ``mask``: rows ``mask_row`` bytes apart, keys adjacent. ``shared``: all rows are the same one, a
    number a key; else the rows of a unit are transposed first, ``vectors`` registers a key.
    """

    kind: MaskKind = ""
    shared: bool = False
    vectors: int = 1

    @property
    def is_full(self) -> bool:
        """Whether there is a number for each score."""
        return bool(self.kind) and not self.shared

    @property
    def element(self) -> Type:
        """What the mask holds."""
        return i8 if self.kind == "bool" else f32

    @property
    def params(self) -> str:
        """The kernel's parameters for the mask."""
        mask = " mask:ptr mask_outer:int mask_inner:int mask_row:int" if self.kind else ""
        return mask + (" fill:float" if self.kind == "bool" else "")

    @property
    def name(self) -> str:
        """``float``, ``shared_bool``."""
        return ("shared_" if self.shared else "") + self.kind

    def block(
        self, k: Builder, mask: Value | None, work: Value, place: tuple[Size, Size, Size]
    ) -> Value | None:
        """What ``apply`` reads for the keys from ``place[0]``; rows and keys are the others."""
        if mask is None:
            return None
        first, rows, keys = place
        mask = k.at(mask, k.mul(first, self.element.bytes))
        if self.shared:
            return mask
        size = (0, rows, keys)
        emit_panel(k, mask, k.p.mask_row, work, size, self.vectors, True, self.element)
        return work

    def apply(
        self, k: Builder, scores: Sequence[Value], mask: Value | None, key: Size, *, added: bool
    ) -> list[Value]:
        """Vectors of scores of queries with one key of the block; ``added``: so is ``fill``."""
        if mask is None:
            return list(scores)
        masked = []
        for n, score in enumerate(scores):
            value = self._value(k, mask, key, n, score.type.lanes)
            if self.kind == "float":
                masked.append(k.fadd(score, value))
                continue
            zero, fill = k.const(value.type, 0), k.splat(k.p.fill, score.type.lanes)
            hidden = k.fadd(score, fill) if added else fill  # NaN stays one in eager
            seen = k.icmp("ne", value, 0) if self.shared else k.fcmp("one", value, zero)
            masked.append(k.select(seen, score, hidden))
        return masked

    def _value(self, k: Builder, mask: Value, key: Size, vector: int, lanes: int) -> Value:
        """What ``block`` found for one key and one vector of queries."""
        if self.shared:
            return k.splat(k.load(self.element, mask, k.mul(key, self.element.bytes)), lanes)
        row = k.at(mask, k.mul(key, self.vectors * lanes * BYTES))
        return k.load(vec(f32, lanes), row, vector * lanes * BYTES)


NO_MASK = Masking()
