"""``torch_aio.explain``: what became of every node of a model, read from its real compile."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.fx import Node
from torch.utils import _pytree as pytree

from torch_aio.engine import compiled
from torch_aio.engine.compiled import CompiledGraph
from torch_aio.engine.variant import Variant
from torch_aio.graph.claim import Verdict
from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import evaluate
from torch_aio.plan.rows import row_of


@dataclass(frozen=True)
class Line:
    """One node: its operation, what became of it, the kernel or the reason, the user's line.

    ``way``: what was chosen where there were several ways to take, and what was not. ``names``:
    what the filters call it (a merged linear has several); ``int8``: whether it was converted, and
    ``refused`` why not where the filter means it. ``widened``: whether a half-precision operator is
    computed in float32, between casts where its neighbours are not.
    """

    graph: str
    node: str
    op: str
    verdict: str
    detail: str
    network: int | None
    flops: int
    source: str
    path: str
    way: str = ""
    names: tuple[str, ...] = ()
    int8: bool = False
    refused: str = ""
    widened: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether the node runs on our kernels (or costs nothing with us)."""
        return self.verdict != "aten"

    @property
    def what(self) -> str:
        """The kernel, with its way, or the reason; why it is not in int8 where it should be."""
        text = f"{self.detail} ({self.way})" if self.way else self.detail
        text += "; in float32" if self.widened else ""
        return f"{text}; not in int8: {self.refused}" if self.refused else text


class Narrow(NamedTuple):
    """A step with fewer work units than there are threads: some of them wait for it."""

    kernel: str
    node: str
    units: int


INEXACT = {"winograd": "Winograd convolutions", "strassen": "Strassen products"}
"""Kernels with fewer multiplications and larger errors, by the beginning of their names."""


UNNAMED = ("view", "outside")
"""Verdicts of what computes nothing: no filter is meant for it."""


@dataclass(frozen=True)
class Explanation:
    """The table of all nodes; printing it shows the table and the totals.

    ``nodes`` and ``flops`` are the shares (0 to 1) on our kernels, over operations that take part
    at run time; ``networks`` counts native calls, ``failures`` are the graphs that fell back, and
    why. ``winograd`` is the error of the answer to the one by direct convolutions and products,
    max|y - direct| / max|direct|, where there are others (``INEXACT``) and the weights are still
    there to be packed for a comparison. ``narrow`` are the steps
    that leave some of PyTorch's present number of threads without work, ``steps`` how many steps
    there are: ``torch.set_num_threads(128)`` before compiling shows the split on a larger machine.
    """

    lines: tuple[Line, ...]
    networks: int
    failures: tuple[str, ...]
    winograd: float | None = None
    narrow: tuple[Narrow, ...] = ()
    steps: int = 0

    @property
    def nodes(self) -> float:
        """The share of tensor nodes on our kernels."""
        return _share((line, line.verdict != "outside") for line in self.lines)

    @property
    def flops(self) -> float:
        """The share of floating point operations on our kernels."""
        return _share((line, line.flops) for line in self.lines)

    @property
    def left_to_aten(self) -> tuple[Line, ...]:
        """The nodes that PyTorch runs."""
        return tuple(line for line in self.lines if not line.is_ours)

    @property
    def names(self) -> tuple[str, ...]:
        """What the filters call the operators, in the order of the graph, each name once."""
        named = (name for line in self.lines if line.verdict not in UNNAMED for name in line.names)
        return tuple(dict.fromkeys(named))

    @property
    def int8(self) -> tuple[str, ...]:
        """The names of the operators that run in int8."""
        return tuple(name for line in self.lines if line.int8 for name in line.names)

    def __str__(self) -> str:
        head = ("node", "operation", "verdict", "kernel or reason", "source")
        rows = [
            (line.node, line.op, line.verdict, line.what, line.source or line.path)
            for line in self.lines
        ]
        widths = [max(len(row[i]) for row in (head, *rows)) for i in range(4)]
        table = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, (*widths, 0), strict=True)).rstrip()
            for row in (head, *rows)
        ]
        totals = (
            f"{self.networks} networks; {self.nodes:.1%} of nodes and {self.flops:.1%} of FLOPs "
            "on our kernels"
        )
        if self.int8:
            totals += f"\n{len(self.int8)} operators in int8"
        if self.winograd is not None:
            counts = [f"{self._count(kind)} {words}" for kind, words in INEXACT.items()]
            found = " and ".join(count for count in counts if not count.startswith("0 "))
            totals += f"\n{found}: error {self.winograd:.1e} to direct ones"
        if self.narrow:
            found = ", ".join(f"{s.node} ({s.units}: {s.kernel})" for s in self.narrow)
            threads = torch.get_num_threads()
            totals += f"\n{len(self.narrow)} of {self.steps} steps have fewer work units than the "
            totals += f"{threads} threads: {found}"
        return "\n".join([*table, totals, *self.failures])

    def _count(self, kind: str) -> int:
        return sum(line.detail.startswith(kind) for line in self.lines)


def explain(model: Callable[..., Any], *inputs: Any, **kwargs: Any) -> Explanation:
    """Run ``model`` once on the inputs and tell, and print, what became of each of its nodes.

    A module or function goes through torch.compile(backend="aio"); a frozen ScriptModule or
    anything already compiled is called as it is.
    """
    result = explanation(model, *inputs, **kwargs)
    print(result)
    return result


def explanation(model: Callable[..., Any], *inputs: Any, **kwargs: Any) -> Explanation:
    """What ``explain`` prints."""
    run = model
    if not isinstance(model, torch.jit.ScriptModule) and not is_compiled(model):
        run = torch.compile(model, backend="aio")
    copies = copied((inputs, kwargs))
    with compiled.observed() as graphs, torch.no_grad():
        answer = copied(run(*inputs, **kwargs))
    lines = [line for graph in graphs for v in graph.variants[-1:] for line in _lines(graph, v)]
    networks = sum(len(v.networks) for graph in graphs for v in graph.variants[-1:])
    failures = tuple(f"{g.captured.name} fell back: {g.failure}" for g in graphs if g.failure)
    winograd = None
    is_inexact = any(line.detail.startswith(tuple(INEXACT)) for line in lines)
    if is_inexact and not any(graph.options.release_weights for graph in graphs):
        with ExitStack() as stack, torch.no_grad():
            for graph in graphs:
                stack.enter_context(graph.otherwise(winograd=False))
            winograd = distance(answer, run(*copies[0], **copies[1]))
    units = [step for graph in graphs for v in graph.variants[-1:] for step in _units(v)]
    narrow = tuple(step for step in units if 0 < step.units < torch.get_num_threads())
    return Explanation(tuple(lines), networks, failures, winograd, narrow, len(units))


def copied(values: Any) -> Any:
    """The same structure, its tensors copied: a model may write into its inputs."""
    return pytree.tree_map_only(torch.Tensor, torch.Tensor.clone, values)


def distance(answer: Any, direct: Any) -> float:
    """The largest over the answer's tensors of max|y - direct| / max|direct|."""
    worst = 0.0
    for y, ref in zip(pytree.tree_leaves(answer), pytree.tree_leaves(direct), strict=True):
        if isinstance(ref, torch.Tensor) and ref.is_floating_point() and ref.numel():
            worst = max(worst, ((y - ref).abs().max() / ref.abs().max()).item())
    return worst


def _units(variant: Variant) -> list[Narrow]:
    """Every step with its work units, for the sizes that the variant was made with."""
    env = variant.guards.hints
    return [
        Narrow(step.spec.name, step.label, evaluate(step.units, env))
        for item in variant.networks.values()
        for step in item.plan.steps
    ]


def is_compiled(model: object) -> bool:
    """Whether a callable goes through one of our doors already."""
    return hasattr(model, "_torchdynamo_orig_callable") or type(model).__module__.startswith(
        "torch_aio"
    )


def _lines(graph: CompiledGraph, variant: Variant) -> Iterable[Line]:
    plans = [item.plan for item in variant.networks.values()]
    kernels = {step.label: step.spec.name for plan in plans for step in plan.steps}
    ways = {c.label: str(c) for plan in plans for c in plan.choices if c.question.is_open}
    order = {stage: i for i, stage in enumerate(sorted(variant.networks))}
    for node in variant.gm.graph.nodes:
        verdict: Verdict | None = node.meta.get("verdict")
        if verdict is None or verdict.kind in ("size", "constant"):
            continue
        yield Line(
            graph.captured.name,
            node.name,
            str(node.target).removeprefix("aten."),
            verdict.kind if "fused" not in node.meta else "fused",
            _detail(node, verdict, kernels),
            order.get(node.meta["stage"]) if verdict.is_ours else None,
            flops(node, variant.guards.hints),
            node.meta.get("source", ""),
            node.meta.get("path", ""),
            ways.get(node.name, ""),
            node.meta.get("names", ()),
            "int8" in kernels.get(node.meta.get("fused", node.name), "") and "int8" in node.meta,
            node.meta.get("refused", {}).get("quantise", ""),
            bool(node.meta.get("widened")),
        )


def _detail(node: Node, verdict: Verdict, kernels: dict[str, str]) -> str:
    if "fused" in node.meta:
        return f"into {node.meta['fused']}"
    return kernels.get(node.name, "") if verdict.is_ours else verdict.reason


def flops(node: Node, env: dict[str, int]) -> int:
    """Floating point operations of a node: its row's count, else one an element of the result."""
    row = row_of(node)
    spec = node.meta["spec"]
    if row is not None and row.flops is not None:
        return evaluate(row.flops(node), env)
    if row is not None and row.view is not None:
        return 0
    parts = spec if isinstance(spec, tuple) else (spec,)
    return sum(evaluate(part.numel, env) for part in parts if isinstance(part, TensorSpec))


def _share(weighted: Iterable[tuple[Line, int]]) -> float:
    ours = total = 0
    for line, weight in weighted:
        total += weight
        ours += weight if line.is_ours else 0
    return ours / total if total else 1.0
