"""einsum with the meaning of one matrix product -> permute, reshape, matmul."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.fx import Node

from torch_aio.graph.rewrite import Rule, Value, aten, emit, refuse, spec


@dataclass(frozen=True)
class Product:
    """The indices of two operands by their part in ``[batch, rows, k] @ [batch, k, columns]``."""

    a: str
    b: str
    out: str
    batch: str
    rows: str
    columns: str
    inner: str


def parse(equation: str) -> Product | str:
    """The product an equation means, or why it is none (a sentence)."""
    equation = equation.replace(" ", "")
    terms, arrow, out = equation.partition("->")
    operands = terms.split(",")
    if len(operands) != 2:
        return f"einsum of {len(operands)} operands is not one matrix product"
    a, b = operands
    if "." in equation or not arrow:
        return "einsum without an explicit output, or with an ellipsis, is left as it is"
    if any(len(set(term)) != len(term) for term in (a, b, out)):
        return "einsum that takes a diagonal is not a matrix product"
    shared = [i for i in a if i in b]
    alone = [i for i in a + b if i not in shared and i not in out]
    if alone or set(out) - set(a + b):
        return "einsum that sums an index of one operand only is not a matrix product"
    batch, inner = ("".join(i for i in shared if (i in out) == kept) for kept in (True, False))
    rows = "".join(i for i in a if i not in shared)
    columns = "".join(i for i in b if i not in shared)
    return Product(a, b, out, batch, rows, columns, inner)


def einsum(node: Node) -> Value:
    """einsum("bhid,bhjd->bhij", [q, k]) -> matmul(q, permute(k))."""
    equation: Value = node.args[0]
    operands: Value = node.args[1]
    found = parse(str(equation))
    if isinstance(found, str):
        refuse(node, "normalise", found)
        return None
    a, b = operands
    sizes = dict(zip(found.a + found.b, spec(a).shape + spec(b).shape, strict=True))
    if not all(isinstance(size, int) for size in sizes.values()) and not _is_plain(found):
        refuse(node, "normalise", "einsum that merges indices of unknown size is left as it is")
        return None
    left = _grouped(node, a, found.a, (found.batch, found.rows, found.inner), sizes)
    right = _grouped(node, b, found.b, (found.batch, found.inner, found.columns), sizes)
    product = emit(node.graph, node, aten.matmul.default, (left, right))
    order = found.batch + found.rows + found.columns
    if len(found.rows) != 1 or len(found.columns) != 1:
        shape = [sizes[i] for i in order]
        product = emit(node.graph, node, aten.reshape.default, (product, shape))
    return _permuted(node, product, order, found.out)


def _is_plain(found: Product) -> bool:
    return all(len(part) == 1 for part in (found.rows, found.columns, found.inner))


def _grouped(
    node: Node, x: Node, indices: str, parts: Sequence[str], sizes: dict[str, Any]
) -> Node:
    """``x`` with its indices in the order of ``parts``, the last two parts one dimension each."""
    batch, first, second = parts
    x = _permuted(node, x, indices, batch + first + second)
    if len(first) == 1 and len(second) == 1:
        return x
    shape = [sizes[i] for i in batch] + [_product(part, sizes) for part in (first, second)]
    return emit(node.graph, node, aten.reshape.default, (x, shape))


def _product(part: str, sizes: dict[str, Any]) -> int:
    total = 1
    for index in part:
        total *= sizes[index]
    return total


def _permuted(node: Node, x: Node, have: str, want: str) -> Node:
    if have == want:
        return x
    return emit(node.graph, node, aten.permute.default, (x, [have.index(i) for i in want]))


RULES: dict[Any, Rule] = {aten.einsum.default: einsum}
