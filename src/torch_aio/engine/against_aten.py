"""Steps against PyTorch (AIO_TUNE=full): what ATen takes for the nodes of each step of a network.

A step whose nodes take ATen less time is a candidate to go back to it. Going back cuts the network,
so the tuner then compares the whole graph with and without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter_ns
from typing import Any

import torch
from torch.fx import Node, map_arg

from torch_aio.engine.constants import ConstantPool
from torch_aio.engine.executor import NetworkItem, Part
from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import evaluate
from torch_aio.plan.choice import Question

KERNEL, ATEN = "kernel", "aten"
Group = tuple[Node, ...]


def groups(part: Part) -> dict[str, Group]:
    """The nodes of each step that ATen could run instead, by the step's label.

    Not what a filter put into int8, nor operators that are ours alone.
    """
    found: dict[str, list[Node]] = {}
    for node in part.nodes:
        if node.meta["verdict"].kind == "kernel":
            found.setdefault(node.meta.get("fused", node.name), []).append(node)
    return {
        label: tuple(nodes) for label, nodes in found.items() if all(map(_is_comparable, nodes))
    }


def _is_comparable(node: Node) -> bool:
    is_aten = getattr(node.target, "namespace", "") == "aten"
    return is_aten and isinstance(node.meta["spec"], TensorSpec) and not node.meta.get("int8")


def question(group: Group) -> Question:
    """Whose the nodes of a step are: it names their operators, operands and numbers."""
    place = {node: f"%{n}" for n, node in enumerate(group)}

    def named(operand: Node) -> Any:
        return place.get(operand) or f"{operand.meta['spec']}"

    texts = [f"{n.target}{map_arg((n.args, dict(n.kwargs)), named)}" for n in group]
    return Question("whose " + "; ".join(texts), (KERNEL,), (ATEN,))


def times(
    item: NetworkItem,
    tensors: Sequence[torch.Tensor],
    env: Mapping[str, int],
    pool: ConstantPool,
) -> dict[str, int]:
    """Nanoseconds that ATen takes for the nodes of each step, by label; ``tensors`` are not kept.

    Steps are left out whose results ATen lays out in another way than the graph promises.
    """
    wanted = groups(item)
    last = {group[-1]: label for label, group in wanted.items()}
    values: dict[Node, Any] = dict(zip(item.inputs, tensors, strict=True))
    spent: dict[str, int] = {}
    with torch.no_grad():
        for node in item.nodes:
            _run((node,), values, env, pool)
            if node in last and all(_keeps_promise(n, values[n], env) for n in wanted[last[node]]):
                start = perf_counter_ns()
                _run(wanted[last[node]], values, env, pool)
                spent[last[node]] = perf_counter_ns() - start
    return spent


def _run(
    nodes: Sequence[Node], values: dict[Node, Any], env: Mapping[str, int], pool: ConstantPool
) -> None:
    def value(node: Node) -> Any:
        if node in values:
            return values[node]
        spec = node.meta["spec"]
        if node.op == "get_attr" or node.meta.get("constant"):
            return pool.value(node)
        return spec if isinstance(spec, TensorSpec) else evaluate(spec, env)

    for node in nodes:
        args, kwargs = map_arg(node.args, value), map_arg(node.kwargs, value)
        values[node] = node.target(*args, **kwargs)  # type: ignore[operator]


def _keeps_promise(node: Node, value: Any, env: Mapping[str, int]) -> bool:
    spec: TensorSpec = node.meta["spec"]
    layout = [evaluate(s, env) for s in spec.stride]
    pairs = zip(value.shape, value.stride(), layout, strict=True)
    return all(size == 1 or have == want for size, have, want in pairs)


def labelled(parts: Mapping[int, Part]) -> Iterator[tuple[Question, Group]]:
    """The question of each step of a graph's networks, and its nodes."""
    for part in parts.values():
        for group in groups(part).values():
            yield question(group), group
