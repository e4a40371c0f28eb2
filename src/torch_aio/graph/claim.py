"""Which nodes are ours: exactly one verdict a node, every refusal with its reason.

For example:

    relu(x)          -> meta["verdict"] = Verdict("kernel")
    aten.fft_rfft(x) -> meta["verdict"] = Verdict("aten", "there is no kernel for aten.fft_rfft")
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from torch.fx import GraphModule, Node

from torch_aio.ir.spec import TensorSpec
from torch_aio.kernels.chain import DTYPES
from torch_aio.plan.row import Row
from torch_aio.plan.rows import row_of


@dataclass(frozen=True)
class Verdict:
    """What became of a node.

    ``kernel``: ours; ``view``: ours, another view of the same memory; ``constant``: computed when
    the graph is compiled; ``size``: an integer; ``aten``: left to PyTorch for ``reason``;
    ``outside``: a view of a network's result, which PyTorch makes.
    """

    kind: Literal["kernel", "view", "constant", "size", "aten", "outside"]
    reason: str = ""

    @property
    def is_pytorchs(self) -> bool:
        """Whether PyTorch runs the node at each call."""
        return self.kind in ("aten", "outside")

    @property
    def is_ours(self) -> bool:
        """Whether the node runs in one of our networks."""
        return self.kind in ("kernel", "view")


MEASURED = Verdict("aten", "PyTorch measured faster")


def claim(gm: GraphModule, back: Collection[str] = ()) -> int:
    """Write the verdict of every operation; returns how many are ours.

    ``back`` names nodes that PyTorch runs faster, as measured.
    """
    ours = 0
    for node in gm.graph.nodes:
        if node.op == "call_function":
            verdict = judge(node)
            if verdict.kind == "kernel" and node.name in back:
                verdict = MEASURED
            node.meta["verdict"] = verdict
            ours += verdict.is_ours
    return ours


def judge(node: Node) -> Verdict:
    """The verdict of one operation."""
    spec = node.meta["spec"]
    if node.meta.get("constant"):
        return Verdict("constant")
    if not isinstance(spec, (TensorSpec, tuple)):
        return Verdict("size")
    row = row_of(node)
    reason = _reason(node, row)
    if reason is not None or row is None:
        return Verdict("aten", reason or "")
    return Verdict("view" if row.view is not None else "kernel")


def _reason(node: Node, row: Row | None) -> str | None:
    if row is None:
        return f"there is no kernel for {_name(node.target)}"
    for tensor in (node, *node.all_input_nodes):
        for spec in _tensors(tensor.meta["spec"]):
            if spec.dtype not in DTYPES:
                return f"{str(spec.dtype).removeprefix('torch.')} tensors have no kernels"
    return row.accept(node)


def _tensors(spec: Any) -> list[TensorSpec]:
    if isinstance(spec, TensorSpec):
        return [spec]
    return [t for s in spec for t in _tensors(s)] if isinstance(spec, (tuple, list)) else []


def _name(target: Any) -> str:
    return str(target) if hasattr(target, "_schema") else getattr(target, "__name__", str(target))
