"""``aio.rope`` spelled in tables and a rotation: equal positions then share their tables."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from torch_aio.graph.rewrite import Rule, Value, aten, bind, emit, refuse, spec
from torch_aio.ops.rope import rope
from torch_aio.ops.rotate import rotate

WIDE = {"dtype": torch.float32}


def rotary(node: Node) -> Value:
    """rope(x, p, t) -> rotate(x, cos(p * f), sin(p * f)), f = t ** -(arange(0, d, 2) / d)."""
    graph, bound = node.graph, bind(node)
    x, width = bound["x"], spec(bound["x"]).shape[-1]
    if not isinstance(width, int) or not width:
        refuse(node, "normalise", "the width of the heads is not known")
        return None
    if spec(x).dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return None

    def step(target: Any, *args: Value, **kwargs: Value) -> Node:
        return emit(graph, node, target, args, kwargs)

    share = step(aten.div.Tensor, step(aten.arange.start_step, 0, width, 2, **WIDE), width)
    frequency = step(aten.reciprocal.default, step(aten.pow.Scalar, float(bound["theta"]), share))
    positions = step(aten._to_copy.default, bound["position_ids"], **WIDE)
    positions = step(aten.unsqueeze.default, step(aten.unsqueeze.default, positions, 1), 3)
    angles = step(aten.mul.Tensor, positions, frequency)
    tables = step(aten.cos.default, angles), step(aten.sin.default, angles)
    return step(rotate, x, *tables)


RULES: dict[Any, Rule] = {rope: rotary}
