"""Graphs for the tests of passes: from torch.export, or by hand; and the check of every pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Interpreter, Node

from torch_aio.ir import shapes
from torch_aio.ir.spec import TensorSpec
from torch_aio.ir.symbols import Expr, evaluate


class Of(torch.nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


def exported(module: torch.nn.Module, *inputs: torch.Tensor, decompose: bool = True) -> GraphModule:
    """The graph form of ``module`` by torch.export (functional ops, weights as constants)."""
    with torch.no_grad():
        program = torch.export.export(module.eval(), inputs)
        program = program.run_decompositions({}) if decompose else program
    signature = program.graph_signature
    held = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    root, graph = torch.nn.Module(), Graph()
    made: dict[Node, Node] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.target in held:
            name = held[node.target]
            source = program.constants if name in program.constants else program.state_dict
            value = source[name]
            flat = f"w{len(made)}"
            root.register_buffer(flat, value.detach() if isinstance(value, torch.Tensor) else value)
            new = graph.get_attr(flat)
            new.meta["name"] = name
            new.meta["spec"] = shapes.spec_of(value)
        elif node.op == "output":
            new = graph.output(tuple(made[n] if isinstance(n, Node) else n for n in node.args[0]))
        else:
            new = graph.node_copy(node, lambda n: made[n])
            fake = node.meta.get("val")
            new.meta = {"spec": _spec(fake)}
        new.meta.update(source="", path="")
        made[node] = new
    return GraphModule(root, graph)


def _spec(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return TensorSpec(
            tuple(map(int, value.shape)), value.dtype, tuple(map(int, value.stride()))
        )
    if isinstance(value, (list, tuple)):
        return tuple(_spec(v) for v in value)
    return value


class Hand:
    """A graph written by hand: ``g.op(aten.relu.default, x)``; inputs and constants are tensors."""

    def __init__(self, *inputs: torch.Tensor) -> None:
        self.graph = Graph()
        self.root = torch.nn.Module()
        self.inputs = [self._leaf(self.graph.placeholder(f"x{i}"), x) for i, x in enumerate(inputs)]

    def _leaf(self, node: Node, value: torch.Tensor) -> Node:
        node.meta.update(spec=shapes.spec_of(value), source="", path="")
        return node

    def constant(self, value: torch.Tensor, name: str = "") -> Node:
        """A get_attr node."""
        flat = f"w{len(self.graph.nodes)}"
        self.root.register_buffer(flat, value)
        node = self._leaf(self.graph.get_attr(flat), value)
        node.meta["name"] = name
        return node

    def op(self, target: Any, *args: Any, **kwargs: Any) -> Node:
        """A call, its spec from running it on meta tensors or by the table."""
        node = self.graph.call_function(target, args, kwargs)
        schema = getattr(target, "_schema", None)
        if schema is not None and schema.is_mutable:
            node.meta["spec"] = args[0].meta["spec"]
        elif schema is not None and not schema.returns:
            node.meta["spec"] = ()
        else:
            given = torch.fx.node.map_arg(args, lambda n: n.meta["spec"])
            named = torch.fx.node.map_arg(kwargs, lambda n: n.meta["spec"])
            node.meta["spec"] = shapes.infer(target, given, named)
        node.meta.update(source="test.py:1: here", path="layer")
        return node

    def done(self, *outputs: Node) -> GraphModule:
        """The module that returns these."""
        self.graph.output(tuple(outputs))
        return GraphModule(self.root, self.graph)


class SpecChecker(Interpreter):
    """Runs a graph and asserts that every tensor is what its node's spec says.

    ``env`` gives the values of the symbols in specs.
    """

    def __init__(self, module: GraphModule, env: dict[str, int] | None = None) -> None:
        super().__init__(module)
        self.symbols = env or {}

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n.op != "output" and n.meta["spec"] is not None:
            check_spec(n, value, self.symbols)
        return value


def numbers(found: Any, env: dict[str, int]) -> Any:
    """A spec with the values of its symbols put in."""
    if isinstance(found, TensorSpec):
        shape, stride = (tuple(evaluate(e, env) for e in v) for v in (found.shape, found.stride))
        return TensorSpec(shape, found.dtype, stride)
    return evaluate(found, env) if isinstance(found, Expr) else found


def check_spec(node: Node, value: Any, env: dict[str, int]) -> None:
    """Assert shape, dtype and strides; strides of sizes 0 and 1 do not matter."""
    found = numbers(node.meta["spec"], env)
    if not isinstance(value, torch.Tensor):
        return
    assert isinstance(found, TensorSpec), node.format_node()
    assert tuple(value.shape) == found.shape, (node.format_node(), value.shape, found)
    assert value.dtype == found.dtype, (node.format_node(), value.dtype, found)
    if value.numel():
        strides = [
            (a, b)
            for n, a, b in zip(value.shape, value.stride(), found.stride, strict=True)
            if n > 1
        ]
        assert all(a == b for a, b in strides), (node.format_node(), value.stride(), found)


def agree(
    gm: GraphModule,
    change: Callable[[GraphModule], Any],
    inputs: Sequence[torch.Tensor],
    bound: float = 2e-5,
) -> Any:
    """Run ``gm`` before and after ``change``; the answers and the written inputs must agree."""
    before_inputs = [_twin(x) for x in inputs]
    after_inputs = [_twin(x) for x in inputs]
    with torch.no_grad():
        want = gm(*before_inputs)
        promised = [tuple(x.stride()) for x in want if isinstance(x, torch.Tensor)]
        result = change(gm)
        gm.graph.lint()
        gm.recompile()
        got = SpecChecker(gm).run(*after_inputs)
    for a, b in zip((*want, *before_inputs), (*got, *after_inputs), strict=True):
        close(b, a, bound)
    for stride, x in zip(promised, (x for x in got if isinstance(x, torch.Tensor)), strict=True):
        relevant = [(a, b) for n, a, b in zip(x.shape, x.stride(), stride, strict=True) if n > 1]
        assert all(a == b for a, b in relevant), (stride, x.stride())
    return result


def _twin(x: Any) -> Any:
    return x.clone(memory_format=torch.preserve_format) if isinstance(x, torch.Tensor) else x


def close(got: Any, want: Any, bound: float) -> None:
    """Assert max|got - want| <= bound * max|want|, and NaN, inf in the same places."""
    if not isinstance(want, torch.Tensor):
        assert got == want
        return
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    if not want.is_floating_point():
        assert torch.equal(got, want)
        return
    finite = torch.isfinite(want)
    assert torch.equal(torch.isnan(got), torch.isnan(want))
    assert torch.equal(got[~finite & ~torch.isnan(want)], want[~finite & ~torch.isnan(want)])
    if finite.any():
        error = (got[finite] - want[finite]).abs().max()
        assert error <= bound * max(float(want[finite].abs().max()), 1e-30), float(error)


def targets(gm: GraphModule, *, constants: bool = False) -> list[str]:
    """The names of the operators called, in order (those of constants left out)."""
    return [
        _operator(node.target)
        for node in gm.graph.nodes
        if node.op == "call_function" and (constants or not node.meta.get("constant"))
    ]


def _operator(target: Any) -> str:
    """``conv2d`` of ``aten.conv2d.default``, ``aio::attention`` of our own."""
    schema = getattr(target, "_schema", None)
    return schema.name.removeprefix("aten::") if schema is not None else target.__name__
