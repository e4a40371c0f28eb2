"""From AOT's graph to the graph form of torch-aio (see ARCHITECTURE.md).

What ``into_form`` does::

    primals_1, primals_2 = placeholders        w0 = get_attr, meta["name"] = "fc.weight"
    linear(primals_2, primals_1)          ->   linear(x, w0), meta["spec"] = TensorSpec(...)
    meta: val, stack_trace, ...                meta: spec, source, path, name
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import fx

from torch_aio.capture.aten import outputs_of
from torch_aio.capture.specs import spec_of
from torch_aio.errors import CaptureError

aten = torch.ops.aten
_TORCH = str(Path(torch.__file__).parent)


def into_form(
    graph_module: fx.GraphModule, constants: Mapping[int, tuple[str, torch.Tensor]]
) -> tuple[fx.GraphModule, dict[str, int], tuple[int, ...]]:
    """Bring a functional graph into the graph form.

    ``constants`` maps positions of placeholders to (qualified name, tensor). Returns the new
    module, ``Captured.live`` and ``Captured.arguments``. The given module is used up.
    """
    graph = graph_module.graph
    root = torch.nn.Module()
    live: dict[str, int] = {}
    arguments: list[int] = []
    names = _Names(root)
    for node in graph.nodes:
        node.meta = _described(node)
    placeholders = graph.find_nodes(op="placeholder")
    last: Any = placeholders[-1] if placeholders else None
    for position, node in enumerate(placeholders):
        if position in constants:
            name, tensor = constants[position]
            stand_in = tensor.detach().to("meta")  # the graph does not keep what it does not own
            last = _constant_after(last, names.add(stand_in), {**node.meta, "name": name})
            live[str(last.target)] = position
            node.replace_all_uses_with(last)
            graph.erase_node(node)
        else:
            arguments.append(position)
    for node in graph.find_nodes(op="get_attr"):
        if node.target not in live:
            tensor = _attribute(graph_module, str(node.target))
            node.meta["name"] = str(node.target)
            node.target = names.add(tensor)
    for node in graph.nodes:
        if node.op == "call_function":
            _respell(node)
    output = graph.output_node()
    output.args = (outputs_of(graph_module),)
    return fx.GraphModule(root, graph), live, tuple(arguments)


def source_line(trace: str | None) -> str:
    """The user's innermost line of a stack trace text: ``model.py:12: x = self.fc(x)``."""
    frames = re.findall(r'File "([^"]+)", line (\d+), in [^\n]*\n\s*([^\n]*)', trace or "")
    own = [frame for frame in frames if not frame[0].startswith(_TORCH)] or frames
    if not own:
        return ""
    path, line, code = own[-1]
    return f"{Path(path).name}:{line}: {code}"


def module_path(stack: Mapping[str, tuple[str, Any]] | None) -> str:
    """The innermost module of an ``nn_module_stack``: ``encoder.layer.3.output.dense``."""
    if not stack:
        return ""
    return qualified_name(str(list(stack.values())[-1][0]))


def qualified_name(source: str) -> str:
    """``L['self']._modules['fc']._parameters['weight']`` as ``fc.weight``."""
    name = re.sub(r"\._(?:modules|parameters|buffers)\b", "", source)
    name = re.sub(r"\[['\"]?([^'\"\]]*)['\"]?\]", r".\1", name)
    return re.sub(r"^[LG]\.\w+\.?", "", name) if source[1:2] == "[" else name


class _Names:
    """Gives each constant the next flat name on the root module."""

    def __init__(self, root: torch.nn.Module) -> None:
        self._root = root
        self._count = 0

    def add(self, tensor: torch.Tensor) -> str:
        name = f"w{self._count}"
        self._count += 1
        setattr(self._root, name, tensor)
        return name


def _described(node: fx.Node) -> dict[str, Any]:
    if node.op == "output":
        return {}
    try:
        spec = spec_of(node.meta.get("val"))
    except CaptureError as error:
        raise CaptureError(f"{node.target}: {error}") from None
    return {
        "spec": spec,
        "source": source_line(node.meta.get("stack_trace")),
        "path": module_path(node.meta.get("nn_module_stack")),
    }


def _constant_after(last: fx.Node, target: str, meta: dict[str, Any]) -> fx.Node:
    with last.graph.inserting_after(last):
        constant = last.graph.create_node("get_attr", target)
    constant.meta = meta
    return constant


def _node(argument: Any) -> fx.Node:
    assert isinstance(argument, fx.Node)
    return argument


def _attribute(root: torch.nn.Module, target: str) -> torch.Tensor:
    value: Any = root
    for part in target.split("."):
        value = getattr(value, part)
    if not isinstance(value, torch.Tensor):
        raise CaptureError(f"the constant {target} is a {type(value).__name__}, not a tensor")
    return value


def _respell(node: fx.Node) -> None:
    """Spell tracing's own operators as the ATen ones that they are."""
    if node.target is torch.ops.prims.convert_element_type.default:
        value, dtype = node.args
        node.target, node.args, node.kwargs = aten._to_copy.default, (value,), {"dtype": dtype}
    elif node.target is aten.lift_fresh_copy.default:
        node.target = aten.clone.default
    elif node.target in (aten.detach.default, aten.lift_fresh.default):
        node.target = aten.alias.default
    elif node.target is aten.copy_.default:
        # It returns what it updates: an output is then visibly an input.
        node.replace_all_uses_with(_node(node.args[0]))
