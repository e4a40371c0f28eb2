"""Group normalisation of blocked tensors: moments of parts of planes, then what each channel needs.

A part's mean and sum of squared deviations come from two passes over it while it lies in L1; parts
are joined in f64 (Chan, Golub and LeVeque 1979), so nothing cancels, and parts are work for threads
where there are fewer groups than those. The map itself, (x - mean) * scale + bias, is a chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from torch_aio.codegen.builder import Builder, Params, Size
from torch_aio.codegen.types import Value, f32, f64
from torch_aio.kernels.blocked import each_vector
from torch_aio.kernels.spec import KernelSpec

BYTES = 4
SUMS = 4
"""Accumulators: they hide the adder's latency."""


@dataclass(frozen=True)
class PartMoments(KernelSpec):
    """parts[image, block, part] = (means, sums of squared deviations), c f32 each, of some rows.

    x is blocked; a part is ``rows`` rows of a plane (the last one fewer), ``count`` parts a plane.
    Units: images * blocks * count.
    """

    params: ClassVar[Params] = Params(
        "x:ptr x_batch:int x_block:int x_row:int blocks:int height:int width:int rows:int "
        "count:int parts:ptr"
    )

    @property
    def name(self) -> str:
        """``part_moments_f32``."""
        return "part_moments_f32"

    def emit(self, k: Builder) -> None:
        """A part a unit, twice over its pixels."""
        p, c = k.p, k.isa.block
        with k.loop(k.begin, k.end) as unit:
            plane, part = k.udiv(unit.i, p.count), k.urem(unit.i, p.count)
            batch, block = k.udiv(plane, p.blocks), k.urem(plane, p.blocks)
            top = k.mul(part, p.rows)
            rows = k.min(p.rows, k.sub(p.height, top))
            pixels = k.cast(k.size(k.mul(rows, p.width)), f32)
            share = k.fdiv(k.const(f32, 1), pixels)
            y = k.at(p.parts, k.mul(unit.i, 2 * c * BYTES))
            with each_vector(k) as lane:
                x = k.at(p.x, k.mul(batch, p.x_batch), k.mul(block, p.x_block),
                         k.mul(top, p.x_row), k.mul(lane, BYTES))  # fmt: skip
                total = self._sum(k, x, rows, None)
                mean = k.fmul(total, k.splat(share, total.type.lanes))
                k.store(mean, y, k.mul(lane, BYTES))
                k.store(self._sum(k, x, rows, mean), y, k.mul(lane, BYTES), c * BYTES)

    def _sum(self, k: Builder, x: Value, rows: Size, mean: Value | None) -> Value:
        """The sum of the pixels of a part, or of their squared distances from ``mean``."""
        p, vector, pixel = k.p, k.isa.vector(f32), k.isa.block * BYTES

        def add(total: Value, at: Value, *offsets: Size) -> Value:
            value = k.load(vector, at, *offsets)
            if mean is None:
                return k.fadd(total, value)
            away = k.fsub(value, mean)
            return k.fma(away, away, total)

        whole = k.sub(p.width, k.urem(p.width, SUMS))
        with k.loop(0, rows, carry=[k.const(vector, 0)] * SUMS) as row:
            here = k.at(x, k.mul(row.i, p.x_row))
            with k.loop(0, whole, SUMS, carry=row.v) as run:
                at = k.at(here, k.mul(run.i, pixel))
                run.next = [add(total, at, n * pixel) for n, total in enumerate(run.v)]
            with k.loop(whole, p.width, carry=run.v[:1]) as tail:
                tail.next = [add(tail.v[0], here, k.mul(tail.i, pixel))]
            row.next = [*tail.v, *run.v[1:]]
        a, b, c, d = row.v
        return k.fadd(k.fadd(a, b), k.fadd(c, d))


@dataclass(frozen=True)
class NormScales(KernelSpec):
    """means[s, c], scales[s, c] of every channel, from the parts of its group in all its images.

    scale = weight / sqrt(variance + eps). A sample is ``images`` images; a plane ``count`` parts of
    ``rows`` rows. Rows of results are ``stride`` bytes; channels past the last get zeros.
    Units: samples * groups.
    """

    has_weight: bool = True

    @cached_property
    def params(self) -> Params:  # type: ignore[override]
        """The parameters for the flag."""
        weight = " weight:ptr" if self.has_weight else ""
        return Params(
            "parts:ptr images:int blocks:int height:int width:int rows:int count:int group:int "
            "groups:int stride:int eps:float means:ptr scales:ptr" + weight
        )

    @property
    def name(self) -> str:
        """``norm_scales_f32_w``."""
        return "norm_scales_f32" + ("_w" if self.has_weight else "")

    def emit(self, k: Builder) -> None:
        """A group a unit, channel by channel."""
        p = k.p
        with k.loop(k.begin, k.end) as unit:
            sample, group = k.udiv(unit.i, p.groups), k.urem(unit.i, p.groups)
            first = k.mul(group, p.group)
            plane = k.mul(p.height, p.width)
            elements = k.cast(k.size(k.mul(k.mul(plane, p.images), p.group)), f64)
            total = self._sum(k, sample, first, None)
            mean = k.fdiv(total, elements)
            variance = k.fdiv(self._sum(k, sample, first, mean), elements)
            root = k.call("llvm.sqrt", f64, [k.fadd(variance, k.cast(p.eps, f64))])
            scale = k.fdiv(k.const(f64, 1), root)
            row = k.mul(sample, p.stride)
            with k.loop(0, p.group) as channel:
                at = k.mul(k.add(first, channel.i), BYTES)
                own = k.cast(scale, f32)
                if self.has_weight:
                    own = k.fmul(own, k.load(f32, p.weight, at))
                k.store(k.cast(mean, f32), p.means, row, at)
                k.store(own, p.scales, row, at)
            rest = k.add(first, p.group)
            is_last = k.icmp("eq", k.size(k.add(group, 1)), p.groups)
            with k.when(is_last), k.loop(rest, k.udiv(p.stride, BYTES)) as lane:
                for result in (p.means, p.scales):
                    k.store(k.const(f32, 0), result, row, k.mul(lane.i, BYTES))

    def _sum(self, k: Builder, sample: Size, first: Size, mean: Value | None) -> Value:
        """The group's sum; with its mean, the sum of squared deviations."""
        p, c = k.p, k.isa.block
        images = k.mul(sample, p.images)
        with k.loop(0, p.group, carry=[k.const(f64, 0)]) as channel:
            number = k.add(first, channel.i)
            lane = k.mul(k.urem(number, c), BYTES)
            with k.loop(0, p.images, carry=channel.v) as image:
                plane = k.add(k.mul(k.add(images, image.i), p.blocks), k.udiv(number, c))
                with k.loop(0, p.count, carry=image.v) as part:
                    at = k.mul(k.add(k.mul(plane, p.count), part.i), 2 * c * BYTES)
                    rows = k.min(p.rows, k.sub(p.height, k.mul(part.i, p.rows)))
                    pixels = k.cast(k.size(k.mul(rows, p.width)), f64)
                    own = k.cast(k.load(f32, p.parts, at, lane), f64)
                    total = part.v[0]
                    if mean is not None:
                        spread = k.cast(k.load(f32, p.parts, at, lane, c * BYTES), f64)
                        away, total = k.fsub(own, mean), k.fadd(total, spread)
                        own = k.fmul(away, away)
                    part.next = [k.fma(own, pixels, total)]
                image.next = part.v
            channel.next = image.v
        return channel.v[0]
