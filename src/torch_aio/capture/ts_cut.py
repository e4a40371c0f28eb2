"""Which stretches of a TorchScript graph become segments, and their replacement in the graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from torch_aio.capture.ts_inplace import is_view, mutates
from torch_aio.capture.ts_operators import FROM_DATA, has_updates, operator_of
from torch_aio.capture.ts_python import CHANGES
from torch_aio.capture.ts_values import DataDependent

# Pure questions and int arithmetic: cloned into a segment that needs them, never a reason to cut.
INTS = frozenset(
    f"aten::{name}" for name in "size dim len numel add sub mul floordiv remainder neg".split()
)
# The size of the result depends on the data.
UNSIZED = frozenset(
    f"aten::{name}"
    for name in "nonzero nonzero_numpy masked_select unique unique_dim unique_consecutive "
    "_unique _unique2 bincount where.default argwhere".split()
)
MAY_RETURN_INPUT = frozenset({"aten::dropout", "aten::feature_dropout", "aten::alpha_dropout"})


def stretches(graph: Any) -> Iterator[Stretch]:
    """The stretches of ``graph`` and its blocks; each must be replaced before the next is asked."""
    updated = has_updates(graph)
    yield from _of_block(graph, updated)


def _of_block(block: Any, updated: bool) -> Iterator[Stretch]:
    for node in list(block.nodes()):
        for inner in node.blocks():
            yield from _of_block(inner, updated)
    run: list[Any] = []
    between: list[Any] = []
    for node in list(block.nodes()):
        if _neutral(node):
            between.append(node)
        elif _eligible(node, updated):
            run.append(node)
        else:
            yield from _stretch(run, between)
            run, between = [], []
    yield from _stretch(run, between)


def _stretch(run: list[Any], between: list[Any]) -> Iterator[Stretch]:
    if any(not _is_cheap(node) for node in run):
        yield Stretch(run, between)


def _is_cheap(node: Any) -> bool:
    """Views and unpacking alone are no work for the engine."""
    return bool(node.kind() == "prim::ListUnpack") or is_view(operator_of(node.schema())[0]._schema)


def _kinds(values: Any) -> list[str]:
    return [v.type().kind() for v in values]


def _is_tensors(kind: Any) -> bool:
    return bool(kind.kind() == "ListType" and kind.getElementType().kind() == "TensorType")


def _neutral(node: Any) -> bool:
    kind = node.kind()
    if kind == "prim::Constant":
        return True
    if kind == "prim::ListConstruct":
        return all(
            use.user.kind().startswith("aten::") and use.user.kind() not in CHANGES
            for use in node.output().uses()
        ) and set(_kinds(node.inputs())) <= {"TensorType", "IntType", "NoneType"}
    if kind not in INTS or node.outputsSize() != 1:
        return False
    output = node.output().type()
    plain = output.kind() == "IntType" or (kind == "aten::size" and output.kind() == "ListType")
    return plain and set(_kinds(node.inputs())) <= {"TensorType", "IntType"}


def _eligible(node: Any, updated: bool) -> bool:
    kind = node.kind()
    if kind == "prim::ListUnpack":
        source = node.input().node()
        return _is_tensors(node.input().type()) and _eligible(source, updated)
    if not kind.startswith("aten::") or kind in FROM_DATA or kind in UNSIZED:
        return False
    try:
        op = operator_of(node.schema())[0]
    except DataDependent:
        return False
    if mutates(op._schema) or torch.Tag.nondeterministic_seeded in op.tags:
        return False
    if updated and (is_view(op._schema) or kind in MAY_RETURN_INPUT):
        return False  # a later update through the view must be seen by its base
    return all(_passes(v) for v in node.inputs()) and _returns_tensors(node)


def _returns_tensors(node: Any) -> bool:
    for output in node.outputs():
        unpacked = all(use.user.kind() == "prim::ListUnpack" for use in output.uses())
        if not (output.type().kind() == "TensorType" or (_is_tensors(output.type()) and unpacked)):
            return False
    return bool(node.outputsSize() > 0)


def _passes(value: Any) -> bool:
    """Whether a segment can get this input: a tensor, an int, or something it can rebuild."""
    if value.type().kind() in ("TensorType", "IntType"):
        return True
    node = value.node()
    if node.kind() == "prim::Constant":
        return True
    return _neutral(node) and node.kind() in ("prim::ListConstruct", "aten::size")


@dataclass
class Stretch:
    """Nodes of one block, in order, that become a segment; ``between`` stand among them."""

    run: list[Any]
    between: list[Any]

    def __post_init__(self) -> None:
        self.body: Any = torch._C.Graph()
        self._inside: dict[str, Any] = {}
        self._inputs: list[Any] = []
        self._own = {v.debugName() for node in self.run for v in node.outputs()}
        for node in self.run:
            self._copy(node)
        self._kept = self._used_outside()
        self._outputs = [v for node in self.run for v in node.outputs() if self._leaves(v)]
        for value in self._outputs:
            self.body.registerOutput(self._inside[value.debugName()])
        self._ints_last()

    def _copy(self, node: Any) -> None:
        inputs = [self._map(v) for v in node.inputs()]
        copy = self.body.create(node.kind(), inputs, node.outputsSize())
        self.body.appendNode(copy)
        for old, new in zip(node.outputs(), copy.outputs(), strict=True):
            new.setType(old.type())
            self._inside[old.debugName()] = new

    def _map(self, value: Any) -> Any:
        """``value`` inside the segment: computed there, rebuilt there, or an input."""
        name = value.debugName()
        if name in self._inside:
            return self._inside[name]
        node = value.node()
        if node.kind() == "prim::Constant":
            copy = self.body.createClone(node, lambda v: v)
            self.body.appendNode(copy)
            self._inside[name] = copy.output()
            named = not name.isdigit() and value.type().kind() == "TensorType"
            if named:
                copy.output().setDebugName(name)
        elif _neutral(node):
            self._copy(node)
        else:
            self._inputs.append(value)
            self._inside[name] = inside = self.body.addInput()
            inside.setType(value.type())
        return self._inside[name]

    def _ints_last(self) -> None:
        """The segment takes tensors first, then ints."""
        kinds = _kinds(self._inputs)
        order = sorted(range(len(kinds)), key=lambda i: kinds[i] == "IntType")
        if order != list(range(len(kinds))):
            self.body.permuteInputs(order)
            self._inputs = [self._inputs[i] for i in order]

    def _used_outside(self) -> list[Any]:
        """The nodes between that somebody outside needs (directly or through another of them)."""
        kept: list[Any] = []
        names: set[str] = set()
        among = {v.debugName() for node in self.between for v in node.outputs()}
        for node in reversed(self.between):
            users = [use.user for v in node.outputs() for use in v.uses()]
            if any(self._is_outside(user, among, names) for user in users):
                kept.append(node)
                names |= {v.debugName() for v in node.outputs()}
        self._kept_names, self._among = names, among
        return kept[::-1]

    def _is_outside(self, user: Any, among: set[str], kept: set[str]) -> bool:
        names = {v.debugName() for v in user.outputs()}
        if names & self._own:
            return False
        return not names & among or bool(names & kept)

    def _leaves(self, value: Any) -> bool:
        return any(
            self._is_outside(use.user, self._among, self._kept_names) for use in value.uses()
        )

    def replace_by(self, graph: Any, number: int) -> None:
        """Put ``aio::run(number, tensors, ints)`` in the place of the stretch."""
        last = self.run[-1]
        graph.setInsertPoint(last)
        constant = graph.insertConstant(number)
        split = [v for v in self._inputs if v.type().kind() != "IntType"]
        ints = [v for v in self._inputs if v.type().kind() == "IntType"]
        tensors = torch._C.ListType(torch._C.TensorType.get())
        packs = []
        for values, kind in ((split, tensors), (ints, torch._C.ListType(torch._C.IntType.get()))):
            pack = graph.create("prim::ListConstruct", values, 1)
            pack.output().setType(kind)
            pack.insertBefore(last)
            packs.append(pack.output())
        call = graph.create("aio::run", [constant, *packs], 1)
        call.output().setType(tensors)
        call.insertBefore(last)
        unpack = graph.create("prim::ListUnpack", [call.output()], len(self._outputs))
        unpack.insertBefore(last)
        for old, new in zip(self._outputs, unpack.outputs(), strict=True):
            new.setType(old.type())
            old.replaceAllUsesWith(new)
        self._move_dependents(unpack)
        self._destroy()

    def _move_dependents(self, unpack: Any) -> None:
        """What stands between and needs a result comes after it."""
        late = {v.debugName() for v in unpack.outputs()}
        anchor = unpack
        for node in self._kept:
            if any(v.debugName() in late for v in node.inputs()):
                node.moveAfter(anchor)
                anchor = node
                late |= {v.debugName() for v in node.outputs()}

    def _destroy(self) -> None:
        dead = [n for n in self.between if n not in self._kept]
        progress = True
        nodes = self.run + dead
        while progress and nodes:
            progress = False
            for node in nodes[::-1]:
                if not node.hasUses():
                    nodes.remove(node)
                    node.destroy()
                    progress = True
