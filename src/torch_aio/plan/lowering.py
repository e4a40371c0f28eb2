"""The context in which graph nodes become steps: values, buffers, constants, steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from torch_aio.codegen.isa import Isa
from torch_aio.config import Options
from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Int, product
from torch_aio.kernels.chain import Access, Chain
from torch_aio.kernels.conv import OVERREAD
from torch_aio.kernels.pack_conv import PackChannels
from torch_aio.kernels.spec import KernelSpec
from torch_aio.plan.channels import channel_lanes
from torch_aio.plan.choice import Answer, Choice, Question, best_guess
from torch_aio.plan.joined import Place
from torch_aio.plan.trace import ChainTrace
from torch_aio.plan.value import Argument, Buffer, Scratch, Step, Value, folded, plain, size_of

Pack = Callable[..., torch.Tensor]
TableFunction = Callable[..., "np.ndarray[Any, Any]"]


@dataclass
class Group:
    """Nodes that become one step: an anchor with its epilogue, or an elementwise chain.

    ``nodes`` in graph order; ``anchor`` the first where a kernel computes it, else None; the value
    of ``output`` (the last node) is the only one that leaves the group. ``before``: the chain whose
    result the anchor reads, computed by the anchor's kernel (``plan.prologue``).
    """

    nodes: list[Node]
    anchor: Node | None
    before: Group | None = None

    @property
    def output(self) -> Node:
        """The node whose value the step produces."""
        return self.nodes[-1]


@dataclass(frozen=True)
class Constant:
    """A packed constant: ``pack`` applied to the values of constant nodes ``nodes``."""

    nodes: tuple[Node, ...]
    pack: Pack | None


@dataclass(frozen=True)
class Table:
    """Numbers computed from sizes when a plan is bound: ``function(*sizes)``."""

    function: TableFunction
    sizes: tuple[Int, ...]


@dataclass
class Lowering:
    """Collects the steps of one network.

    ``inputs`` are the nodes whose tensors come from outside, ``outputs`` those whose tensors go
    out. ``packed_value`` gives the packed tensor of a recipe (once per weights, from the engine).
    ``answer`` decides what families leave open; ``choices`` is what they asked.
    """

    isa: Isa
    inputs: Sequence[Node]
    outputs: Sequence[Node]
    packed_value: Callable[[Constant], torch.Tensor]
    options: Options = field(default_factory=Options)
    halos: dict[Node, tuple[int, int]] = field(default_factory=dict)
    places: dict[Node, Place] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    constants: list[Constant | Table] = field(default_factory=list)
    values: dict[Node, Value] = field(default_factory=dict)
    parts: dict[Node, dict[int, Value]] = field(default_factory=dict)
    row_of: Callable[[Node], Any] = field(default=lambda node: None)
    clear_halo: Callable[[Lowering, Value, tuple[int, int]], None] | None = None
    answer: Answer = best_guess
    choices: list[Choice] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._constant_values: dict[Constant | Table, Value] = {}
        self._wholes: dict[Node, Value] = {}
        self._arena_count = 0
        self.label = ""
        for index, node in enumerate(self.inputs):
            spec: TensorSpec = node.meta["spec"]
            extent = self._extent(spec)
            self.values[node] = Value(
                self._buffer("input", extent, index, node.name), spec.shape, spec.dtype, spec.stride
            )

    # ---- operands -------------------------------------------------------------------------

    def value(self, node: Node) -> Value:
        """The value of a node that is already lowered, an input or a constant."""
        if node not in self.values:
            if not node.meta.get("constant"):
                raise KeyError(f"{node.name} is used before it is lowered")
            self.values[node] = self.constant(node)
        return self.values[node]

    def is_constant(self, node: object) -> bool:
        """Whether the value of an argument is known when the plan is made."""
        return isinstance(node, Node) and bool(node.meta.get("constant"))

    def constant(self, node: Node | tuple[Node, ...], pack: Pack | None = None) -> Value:
        """The (packed) constant; ``pack``, hashable by value: a frozen dataclass or a function."""
        nodes = node if isinstance(node, tuple) else (node,)
        key = Constant(nodes, pack)
        if key not in self._constant_values:
            if pack is None:
                spec: TensorSpec = nodes[0].meta["spec"]
            else:
                tensor = self.packed_value(key)
                spec = TensorSpec(tuple(tensor.shape), tensor.dtype, tensor.stride())
            self._constant_values[key] = self._add_constant(key, spec)
        return self._constant_values[key]

    def table(self, function: TableFunction, *sizes: Int) -> Value:
        """Numbers (an int32 or int64 array) computed from sizes, known when the plan is bound."""
        key = Table(function, sizes)
        if key not in self._constant_values:
            self._constant_values[key] = self._add_constant(key, None)
        return self._constant_values[key]

    # ---- results --------------------------------------------------------------------------

    def output(self, node: Node) -> Value:
        """Memory for a node's result, in the node's layout, zero halo and padding included."""
        spec: TensorSpec = node.meta["spec"]
        if node.meta.get("layout") == "blocked":
            place = self.places.get(node, Place(node, 0))
            if place.whole not in self._wholes:
                self._wholes[place.whole] = self._blocked(place.whole)
            value = self._wholes[place.whole].channels(place.first, spec.shape[1])
        elif node in self.outputs:
            buffer = self._buffer("output", self._extent(spec), self.outputs.index(node), node.name)
            value = Value(buffer, spec.shape, spec.dtype, spec.stride)
        else:
            value = self.temporary(spec.shape, spec.dtype, node.name)
        self.values[node] = value
        return value

    def bind(self, node: Node, value: Value) -> None:
        """Say that ``value`` is the node's result (a view, or memory the family allocated)."""
        self.values[node] = value

    def bind_part(self, node: Node, index: int, value: Value) -> None:
        """Say that ``value`` is output ``index`` of a node with several."""
        self.parts.setdefault(node, {})[index] = value

    def temporary(self, shape: tuple[Int, ...], dtype: torch.dtype, label: str = "") -> Value:
        """Arena memory, row-major, that lives from its first to its last step."""
        return plain(self._arena(size_of(shape, dtype), label), shape, dtype)

    def scratch(self, size: Int) -> Scratch:
        """``size`` bytes for each thread, undefined before and after the step."""
        return Scratch(size)

    def step(
        self, spec: KernelSpec, units: Int, writes: tuple[str, ...], **arguments: Argument
    ) -> None:
        """Append a kernel call; ``writes`` names the parameters that it writes."""
        missing = set(spec.params.kinds) ^ set(arguments)
        if missing:
            raise TypeError(
                f"{spec.name}: arguments do not match the parameters: {sorted(missing)}"
            )
        reads = tuple(
            v.buffer for n, v in arguments.items() if isinstance(v, Value) and n not in writes
        )
        written = tuple(v.buffer for n in writes if isinstance(v := arguments[n], Value))
        self.steps.append(Step(spec, units, arguments, reads, written, self.label))

    def choose(self, text: str, candidates: Sequence[str], more: Sequence[str] = ()) -> str:
        """The way to take among named ones, the best guess first; see ``Question``.

        The steps of the group that asks are what its candidates are timed by: at most one question
        a group, and candidates differ only in the steps of the group.
        """
        question = Question(text, tuple(candidates), tuple(more))
        chosen = self.answer(question) if question.is_open else candidates[0]
        self.choices.append(Choice(question, chosen, self.label))
        return chosen

    # ---- chains ---------------------------------------------------------------------------

    def epilogue(self, group: Group, trace: ChainTrace, channel: int) -> tuple[Chain, list[Value]]:
        """Finish the chain of a group behind its anchor.

        ``trace`` already holds the accumulator (and bias). Returns the chain and the values of
        inputs 1.. expanded to the output's shape; dimension ``channel`` decides their access kind.
        """
        for node in group.nodes:
            if node is not group.anchor:
                trace.values[node] = self.row_of(node).chain(trace, node)
        return self.close(trace, group.output, channel)

    def close(self, trace: ChainTrace, output: Node, channel: int) -> tuple[Chain, list[Value]]:
        """The chain of a trace whose result is the value of ``output``; see ``epilogue``."""
        spec: TensorSpec = output.meta["spec"]
        result = trace.values[output]
        if trace.steps and getattr(result, "index", -1) != len(trace.steps) - 1:
            trace.values[output] = trace.step("cast", (result,), spec.dtype)
        accesses: list[Access] = []
        operands: list[Value] = []
        for node in trace.inputs:
            if node is None:
                accesses.append("full")
                continue
            value = self._operand(node, output)
            accesses.append(_access(value, spec.shape, channel))
            operands.append(value if value.block else value.expand(spec.shape))
        return trace.chain(accesses), operands

    def _operand(self, node: Node, output: Node) -> Value:
        """An operand of a chain; a constant beside a blocked output as channel lanes."""
        have: TensorSpec = node.meta["spec"]
        spec: TensorSpec = output.meta["spec"]
        plain_beside_blocked = output.meta.get("layout") == "blocked" and self.is_constant(node)
        if plain_beside_blocked and any(size != 1 for size in have.shape):
            lanes = self.constant(node, PackChannels(self.isa.block))
            return channel_lanes(lanes, spec.shape[1], self.isa.block)
        return self.value(node)

    # ---- buffers --------------------------------------------------------------------------

    def _extent(self, spec: TensorSpec) -> Int:
        last: Int = 1
        for size, stride in zip(spec.shape, spec.stride, strict=True):
            last = last + (size - 1) * stride
        return last * spec.dtype.itemsize

    def _buffer(self, kind: Any, size: Int, index: int, label: str) -> Buffer:
        buffer = Buffer(kind, size, index, label)
        self.buffers.append(buffer)
        return buffer

    def _arena(self, size: Int, label: str) -> Buffer:
        self._arena_count += 1
        return self._buffer("arena", size, self._arena_count - 1, label)

    def _add_constant(self, key: Constant | Table, spec: TensorSpec | None) -> Value:
        self.constants.append(key)
        size = 0 if spec is None else size_of(spec.shape, spec.dtype)
        buffer = self._buffer("constant", size, len(self.constants) - 1, "")
        if spec is None:
            return Value(buffer, (1,), torch.int32, (1,))
        return Value(buffer, spec.shape, spec.dtype, spec.stride)

    def _blocked(self, node: Node) -> Value:
        spec: TensorSpec = node.meta["spec"]
        block, (top, left) = self.isa.block, self.halos.get(node, (0, 0))
        shape = folded(spec.shape)
        n, channels, *plane = shape
        height, width = plane if len(plane) == 2 else (1, plane[0])
        blocks = (channels + block - 1) // block
        row = (width + 2 * left) * block
        area = (height + 2 * top) * row
        size = product((n, blocks, area)) + OVERREAD * block
        buffer = self._arena(size * spec.dtype.itemsize, node.name)
        inner = (top * row + left * block) * spec.dtype.itemsize
        stride = (blocks * area, area, row, block)
        value = Value(buffer, shape, spec.dtype, stride, inner, block)
        if (top or left) and self.clear_halo:
            self.clear_halo(self, value, (top, left))
        return value


def _access(value: Value, shape: tuple[Int, ...], channel: int) -> Access:
    if value.block:
        plane, whole = value.shape[-2:], folded(shape)[-2:]
        varies = any(have != want for have, want in zip(plane[-len(whole) :], whole, strict=True))
        return "channel" if varies or all(s == 1 for s in plane) else "full"
    varying = {i - len(value.shape) for i, size in enumerate(value.shape) if size != 1}
    if not varying:
        return "scalar"
    if varying == {channel if channel < 0 else channel - len(shape)}:
        return "channel"
    if channel == -1 and -1 not in varying:
        return "row"
    return "full"
