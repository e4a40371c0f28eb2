"""Transposed convolutions, and convolutions of three dimensions: plain ones by phases.

A phase (``phases``) is a convolution of two dimensions that writes every s-th pixel of the result.
The taps of depth are further input channels: in a blocked tensor of images [N * D][C/c][H][W][c]
the blocks of the next image follow those of the one before, so that a view of overlapping images
does. Images of zeros around each sample are the padding of depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import Node

from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Int, product
from torch_aio.kernels.pack_conv import PickTaps
from torch_aio.plan.families import conv, direct, images
from torch_aio.plan.families.fused import apply_masked
from torch_aio.plan.families.phases import Phase, Phased
from torch_aio.plan.families.reorder import planes
from torch_aio.plan.families.windows import Conv, Job, Samples, full_values
from torch_aio.plan.lowering import Group, Lowering
from torch_aio.plan.row import Row
from torch_aio.plan.value import Value

aten = torch.ops.aten
Phases = tuple[Phase, Phase, Phase]


@dataclass(frozen=True)
class _Work:
    """A convolution to lower: ``source`` with its padding of depth, ``job`` of all phases.

    ``merged`` groups are computed as one; ``spreads``: the taps of depth are copied side by side.
    """

    form: Phased
    source: images.Stack
    result: images.Stack
    job: Job
    merged: int
    spreads: bool


def lower(ctx: Lowering, group: Group) -> None:
    """``convolution`` (transposed), ``conv3d``: a step a phase."""
    node = group.anchor
    assert node is not None
    source: Any = node.args[0]
    form, x = Phased.of(node), images.stack(source, ctx.value(source))
    job = conv.job_of(ctx, group, _whole(form))
    merged = _merged(form, ctx.isa.block)
    deep = any(len(phases[0].taps) > 1 for phases in form.phases)
    apart = any(phases[0].apart > 1 for phases in form.phases)
    spreads = deep and (form.groups > merged or (apart and form.inputs > ctx.isa.block))
    if not spreads and (form.halo[0] or (deep and not x.is_dense)):
        x = images.padded(ctx, x, form.halo[0], form.halo[1:])
    work = _Work(form, x, images.stack(group.output, job.target), job, merged, spreads)
    for phases in form.phases:
        _lower_phase(ctx, work, phases)


def _whole(form: Phased) -> Conv:
    one = (1, 1)
    return Conv(form.inputs, form.outputs, form.groups, one, one, (0, 0), (0, 0), one)


def _merged(form: Phased, block: int) -> int:
    """Groups that are computed as one, zeros between them, so that channel blocks are whole."""
    if form.groups == 1:
        return 1
    inner, outer = form.inputs // form.groups, form.outputs // form.groups
    for count in range(1, form.groups):
        whole = count * inner % block == 0 and count * outer % block == 0
        if form.groups % count == 0 and whole:
            return count
    return form.groups


def _lower_phase(ctx: Lowering, work: _Work, phases: Phases) -> None:
    """One phase: the operands seen through it, a convolution of two dimensions."""
    job, form, block = work.job, work.form, ctx.isa.block
    sizes = [p.outputs(s) for p, s in zip(phases, work.result.sizes, strict=True)]
    target = work.result.seen(phases, sizes)
    operands = [_seen(work, value, phases, sizes) for value in job.operands]
    if not all(phase.taps for phase in phases):
        _without_taps(ctx, work, target, operands)
        return
    depth, rows, columns = phases
    groups, taps = form.groups // work.merged, len(depth.taps)
    inputs = form.inputs // groups
    inputs = inputs if taps == 1 else -(-inputs // block) * block
    x = work.source
    if work.spreads:
        x = images.gathered(ctx, x, depth, int(sizes[0]), groups, form.halo[1:])  # type: ignore[arg-type]
        value = x.value
    else:
        value = x.moved(depth)
    plain = Conv(
        groups * taps * inputs, form.outputs, groups,
        (len(rows.taps), len(columns.taps)), (rows.advance, columns.advance),
        (-rows.start, -columns.start), (0, 0), (rows.apart, columns.apart),
    )  # fmt: skip
    value = replace(value, shape=(sizes[0], plain.inputs, *planes(value.shape)[2:]))
    kernel = (depth.taps, rows.taps, columns.taps)
    pick = PickTaps(form.is_transposed, form.groups, work.merged, kernel, block)
    samples = None if work.result.is_one else _samples(work, x)
    phase = Job(plain, job.weight, job.chain, operands, target, pick, samples)
    if samples is None and len(form.phases) == 1:
        conv.whole_blocks(ctx, phase, value)
    else:
        direct.lower(ctx, phase, value, direct.ways(ctx, phase, value)[0])


def _seen(work: _Work, value: Value, phases: Phases, sizes: Sequence[Int]) -> Value:
    """An operand of the epilogue as the phase sees it: what varies by pixel like the result."""
    if not any(value is full for full in full_values(work.job.chain, work.job.operands)):
        return value
    return replace(work.result, value=value).seen(phases, sizes)


def _samples(work: _Work, x: images.Stack) -> Samples:
    """Where the other samples lie."""
    result = work.result
    full = full_values(work.job.chain, work.job.operands)
    operands = tuple(result.depth * value.byte_stride[0] for value in full)
    return Samples(result.samples, x.sample_bytes, result.sample_bytes, operands)


def _without_taps(ctx: Lowering, work: _Work, target: Value, operands: list[Value]) -> None:
    """Pixels that no input reaches: the epilogue of zero, sample by sample."""
    zero, samples = images.zero(ctx), _samples(work, work.source)
    is_full = [any(v is f for f in full_values(work.job.chain, operands)) for v in operands]
    for sample in range(int(samples.count)):  # type: ignore[arg-type]
        steps = iter(samples.operands)
        moved = [
            _later(v, sample * next(steps)) if full else v
            for v, full in zip(operands, is_full, strict=True)
        ]
        apply_masked(ctx, work.job.chain, [zero, *moved], _later(target, sample * samples.y))


def _later(value: Value, distance: Int) -> Value:
    return replace(value, offset=value.offset + distance)


# ---- rows ---------------------------------------------------------------------------------


def accept(node: Node) -> str | None:
    """f32, constant weight and bias, a batch, channels; sizes known where images are gathered."""
    refusal = conv.accept(node)
    if refusal:
        return refusal
    form, spec = Phased.of(node), node.args[0].meta["spec"]  # type: ignore[union-attr]
    if spec.ndim == 5:
        deep = form.windows[0]
        known = isinstance(spec.shape[2], int)
        copies = form.groups > 1 or deep.dilation > 1 or not isinstance(spec.shape[0], int)
        if copies and not known:
            return "the depth of its images is not known"
        if form.is_transposed and not isinstance(spec.shape[0], int):
            taps = min(len(p.taps) for w in form.windows for p in w.transposed)
            if not taps:
                return "the batch of a transposed convolution that leaves gaps is not known"
    return None


def halo(node: Node) -> tuple[int, int] | None:
    """The zeros that the kernel reads around the planes of its input."""
    depth, rows, columns = Phased.of(node).halo
    return (rows, columns) if not depth and (rows or columns) else None


def flops(node: Node) -> Any:
    """Multiply-adds times two."""
    form, source = Phased.of(node), node.args[0]
    of: TensorSpec = (source if form.is_transposed else node).meta["spec"]  # type: ignore[union-attr]
    return product((of.shape[0], *of.shape[2:])) * 2 * form.multiply_adds


ROWS: tuple[Row, ...] = tuple(
    Row(op, "conv", accept, lower, epilogue=True, layout="blocked", halo=halo, flops=flops)
    for op in (aten.convolution.default, aten.conv3d.default, aten.conv3d.padding)
)
