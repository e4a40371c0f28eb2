"""Pass ``name_operators``: what the filters call an operator, its kind and its module's path.

    linear in module encoder.layer.3.output.dense  ->  "Linear:encoder.layer.3.output.dense"

Where the path is lost (torch.jit.load) the kind stands alone. A filter is a regular expression that
matches from the beginning, so "Linear" means every linear layer; a kind with another name answers
to both.
"""

from __future__ import annotations

import re

from torch.fx import GraphModule, Node

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


def name_operators(gm: GraphModule) -> int:
    """Write meta["names"], what filters call a node; returns 0, as nothing is rewritten.

    Before linears are merged: a merged one then has the names of all.
    """
    for node in gm.graph.nodes:
        if node.op == "call_function":
            path = str(node.meta.get("path", ""))
            node.meta["names"] = (f"{kind(node)}:{path}" if path else kind(node),)
    return 0


def matches(pattern: str, name: str) -> bool:
    """Whether a filter means an operator of this name, by either name of its kind."""
    known, colon, path = name.partition(":")
    names = [name, f"{ALIASES[known]}{colon}{path}"] if known in ALIASES else [name]
    return any(re.match(pattern, candidate) for candidate in names)
