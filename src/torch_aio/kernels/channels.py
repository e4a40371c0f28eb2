"""Channels of blocked tensors in another order: channel shuffles, groups that straddle blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch_aio.codegen.builder import Builder, Params
from torch_aio.codegen.types import Value, f32, i32, i64, vec
from torch_aio.kernels import chain as chains
from torch_aio.kernels.blocked import (
    ACCUMULATOR,
    Epilogue,
    each_vector,
    full_operands,
    operand_params,
)
from torch_aio.kernels.chain import Chain, itemsize
from torch_aio.kernels.spec import KernelSpec

BYTES = 4


@dataclass(frozen=True)
class GatherChannels(KernelSpec):
    """y[:, i] = epilogue(x<s>[:, source(i)]), or epilogue(0) where there is no source.

    ``table``: an i32 a channel of y (up to whole blocks), the byte offset of its source in a pixel
    of the first block of x<s>, or -1; where there are several ``sources``, then an i32 a channel
    that says which: s. ``masked``: y's last block has padding lanes, stored as zero.
    Units: batch * blocks * height.
    """

    sources: int = 1
    masked: bool = False
    chain: Chain = ACCUMULATOR

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The kernel's parameters, the epilogue's operands last."""
        return Params(
            " ".join(f"x{s}:ptr x{s}_batch:int x{s}_row:int" for s in range(self.sources))
            + " table:ptr y:ptr y_batch:int y_block:int y_row:int "
            "channels:int blocks:int height:int width:int " + operand_params(self.chain, rows=True)
        )

    @property
    def name(self) -> str:
        """``gather_channels_f32_relu_1f3a9c``."""
        count = f"_{self.sources}" if self.sources > 1 else ""
        tail = "_tail" if self.masked else ""
        return f"gather_channels_f32{count}{tail}" + (
            f"_{self.chain.name}" if self.chain.name else ""
        )

    def emit(self, k: Builder) -> None:
        """Lane by lane."""
        p, c, lanes = k.p, k.isa.block, k.isa.lanes(f32)
        size = itemsize(self.chain.result)
        with k.loop(k.begin, k.end) as unit:
            plane, row = k.udiv(unit.i, p.height), k.urem(unit.i, p.height)
            batch, block = k.udiv(plane, p.blocks), k.urem(plane, p.blocks)
            with each_vector(k) as lane:
                rows = [
                    k.at(getattr(p, f"x{s}"), k.mul(batch, getattr(p, f"x{s}_batch")),
                         k.mul(row, getattr(p, f"x{s}_row")))
                    for s in range(self.sources)
                ]  # fmt: skip
                y = k.at(p.y, k.mul(batch, p.y_batch), k.mul(block, p.y_block),
                         k.mul(row, p.y_row), k.mul(lane, size))  # fmt: skip
                entry = k.at(p.table, k.mul(k.add(k.mul(block, c), lane), 4))
                exists = k.icmp("sge", k.load(vec(i32, lanes), entry), 0)
                places = [self._source(k, rows, k.at(entry, n * 4)) for n in range(lanes)]
                channels = p.channels if self.masked else None
                epilogue = Epilogue.at(k, self.chain, batch, block, lane, channels)
                with k.loop(0, p.width) as pixel:
                    here = k.mul(pixel.i, c * BYTES)
                    value = zero = k.const(vec(f32, lanes), 0)
                    for n, place in enumerate(places):
                        value = k.insert(value, k.load(f32, place, here), n)
                    offsets = [
                        k.add(
                            k.mul(row, getattr(p, f"e{n}_row")),
                            k.mul(pixel.i, c * itemsize(self.chain.inputs[n].dtype)),
                        )
                        for n in full_operands(self.chain)
                    ]
                    result = epilogue(k.select(exists, value, zero), offsets)
                    chains.store(k, result, y, k.mul(pixel.i, c * size))

    def _source(self, k: Builder, rows: list[Value], entry: Value) -> Value:
        """Where a lane's channel of the row begins."""
        offset = k.max(k.cast(k.load(i32, entry), i64), 0)
        place = rows[0]
        if len(rows) > 1:
            number = k.load(i32, entry, k.mul(k.p.blocks, k.isa.block * 4))
            for s, row in enumerate(rows[1:], 1):
                place = k.select(k.icmp("eq", number, s), row, place)
        return k.at(place, offset)
