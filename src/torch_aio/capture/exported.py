"""An exported program taken apart: inputs and weights as positional arguments, its result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from torch_aio.capture import compat
from torch_aio.capture.signature import Leaf, Root, Signature, roots_of
from torch_aio.capture.specs import spec_of
from torch_aio.ir.spec import TensorSpec


class Lifted:
    """An exported program's graph with symbols, inputs and weights as positional arguments.

    That is::

        l_weight = get_attr["l.weight"]; x = placeholder   ->   s77, x, l_weight = placeholders

    ``module`` runs in plain PyTorch, gradients included; ``examples`` are its fake arguments.
    """

    def __init__(self, program: ExportedProgram, unlifted: fx.GraphModule) -> None:
        self._structure = program.call_spec.in_spec
        self._info = getattr(unlifted.graph._codegen, "pytree_info", None)
        inputs = unlifted.graph.find_nodes(op="placeholder")
        values = [node.meta.get("val") for node in inputs]
        self._leaves = [Leaf(node.name, spec_of(v)) for node, v in zip(inputs, values, strict=True)]
        self.roots: dict[str, Root] = roots_of(self._leaves)
        self.fake_mode = compat.detect_fake_mode(values) or compat.FakeTensorMode()
        self.weights: dict[str, torch.Tensor] = {}
        self.passed = sum(isinstance(leaf.value, TensorSpec) for leaf in self._leaves)
        self.module = self._lift(unlifted, inputs)
        self.examples = [
            *(self._symbol(root, values) for root in self.roots.values()),
            *(value for value in values if isinstance(value, torch.Tensor)),
            *(self.fake_mode.from_tensor(w, static_shapes=True) for w in self.weights.values()),
        ]

    def _lift(self, unlifted: fx.GraphModule, inputs: Sequence[fx.Node]) -> fx.GraphModule:
        graph = fx.Graph()
        symbols = {name: graph.placeholder(name) for name in self.roots}
        env: dict[fx.Node, Any] = {}
        for node, leaf in zip(inputs, self._leaves, strict=True):
            if isinstance(leaf.value, TensorSpec):
                env[node] = graph.node_copy(node)
                env[node].args = ()  # an exported default value is not one here
            else:
                env[node] = symbols.get(str(leaf.value), leaf.value)
        self._lift_weights(unlifted, graph, env)
        for node in unlifted.graph.nodes:
            if node in env or (node.op == "call_module" and node.target == "_guards_fn"):
                continue
            if node.op == "output":
                flat = [n for n in pytree.tree_leaves(node.args[0]) if isinstance(n, fx.Node)]
                graph.output(tuple(env[n] for n in flat))
            else:
                env[node] = graph.node_copy(node, env.__getitem__)
        return fx.GraphModule(unlifted, graph)

    def _lift_weights(
        self, unlifted: fx.GraphModule, graph: fx.Graph, env: dict[fx.Node, Any]
    ) -> None:
        lifted: dict[int, fx.Node] = {}
        for node in unlifted.graph.find_nodes(op="get_attr"):
            value: Any = unlifted
            for part in str(node.target).split("."):
                value = getattr(value, part)
            if isinstance(value, torch.Tensor):
                if id(value) not in lifted:
                    lifted[id(value)] = graph.placeholder(node.name)
                    self.weights[str(node.target)] = value
                env[node] = lifted[id(value)]

    @staticmethod
    def _symbol(root: Root, values: Sequence[Any]) -> Any:
        value = values[root.leaf]
        size = value if root.dimension is None else value.shape[root.dimension]
        return size if root.plain else (size - root.addend) // root.factor

    def signature(self, pinned: frozenset[int]) -> Signature:
        """The program's arguments; ``pinned`` are positions that a call updates or returns."""
        positional, keyword = compat.children_of(self._structure)
        structures = [*compat.children_of(positional), *compat.children_of(keyword)]
        names = [f"argument {i}" for i in range(positional.num_children)] + list(keyword.context)
        if self._info is not None and len(self._info.orig_args) == len(names):
            names[: positional.num_children] = self._info.orig_args[: positional.num_children]
        leaves: list[Leaf] = []
        position = len(self.roots)
        for name, structure in zip(names, structures, strict=True):
            paths = _paths(structure)
            for path in paths:
                value = self._leaves[len(leaves)].value
                leaves.append(Leaf(name + path, value, position in pinned and _tensor(value)))
                position += _tensor(value)
        return Signature(tuple(names), positional.num_children, tuple(structures), tuple(leaves))


class Result:
    """From the flat outputs of the graph to the answer: constants put back, structure restored."""

    def __init__(self, unlifted: fx.GraphModule, program: ExportedProgram) -> None:
        (flat,) = unlifted.graph.output_node().args
        self._leaves = pytree.tree_leaves(flat)
        self._structure = program.call_spec.out_spec
        self._constant = any(not isinstance(leaf, fx.Node) for leaf in self._leaves)

    @property
    def source(self) -> str:
        """The answer as an expression over ``outputs``."""
        if self._constant:
            return "unflatten(outputs)"
        if self._structure.is_leaf():
            return "outputs[0]"
        if self._structure.type is tuple and all(
            c.is_leaf() for c in compat.children_of(self._structure)
        ):
            return "tuple(outputs)"
        return "unflatten(outputs)"

    def unflatten(self, outputs: Sequence[Any]) -> Any:
        """The answer."""
        found = iter(outputs)
        leaves = [next(found) if isinstance(leaf, fx.Node) else leaf for leaf in self._leaves]
        return pytree.tree_unflatten(leaves, self._structure)


def _tensor(value: Any) -> bool:
    return isinstance(value, TensorSpec)


def _paths(structure: pytree.TreeSpec) -> list[str]:
    """The path of each leaf, as Python: ``['mask'][0]``."""
    skeleton = pytree.tree_unflatten(list(range(structure.num_leaves)), structure)
    return [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(skeleton)[0]]
