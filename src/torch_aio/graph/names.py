"""What the filters call an operator: its kind and the path of its module.

    linear in module encoder.layer.3.output.dense  ->  "Linear:encoder.layer.3.output.dense"

Where the path is lost (torch.jit.load) the kind stands alone. A filter is a regular expression that
matches from the beginning, so "Linear" means every linear layer; a kind with another name answers
to both.
"""

from __future__ import annotations

import re

from torch.fx import Node

from torch_aio.graph.hoist_constants import is_constant
from torch_aio.graph.rewrite import aten, bind, calls, spec
from torch_aio.ir.spec import TensorSpec
from torch_aio.plan.families.gemm import ROWS, parse

_PRODUCTS = {row.op for row in ROWS}

ALIASES = {"Linear": "FullyConnected", "ConvTranspose2d": "Deconv2d", "ConvTranspose3d": "Deconv3d"}


def kind(node: Node) -> str:
    """The kind of a call: ``Linear``, ``Matmul``, ``Conv2d``, ``LayerNorm`` ...

    A product by a constant matrix is a ``Linear``, however it is spelled, any other a ``Matmul``.
    """
    if node.target in _PRODUCTS:
        right = parse(node).y
        return "Linear" if spec(right).ndim == 2 and is_constant(right) else "Matmul"
    if calls(node, aten.convolution.default):
        shape: TensorSpec = spec(node)
        turned = "Transpose" if bind(node)["transposed"] else ""
        return f"Conv{turned}{shape.ndim - 2}d"
    name = str(node.target).split(".")[-2 if "." in str(node.target) else -1]
    return "".join(word[:1].upper() + word[1:] for word in name.strip("_").split("_"))


def name(node: Node) -> str:
    """The name that filters match: kind and path of the module."""
    path = str(node.meta.get("path", ""))
    return f"{kind(node)}:{path}" if path else kind(node)


def matches(pattern: str, node: Node) -> bool:
    """Whether a filter means this node, by either name of its kind."""
    first = name(node)
    known, _, path = first.partition(":")
    names = [first]
    if known in ALIASES:
        names.append(ALIASES[known] + (f":{path}" if path else ""))
    return any(re.match(pattern, candidate) for candidate in names)
