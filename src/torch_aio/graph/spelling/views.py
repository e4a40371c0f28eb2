"""One spelling for the operators that only look at memory in another way."""

from __future__ import annotations

import operator
from typing import Any

from torch.fx import Node

from torch_aio.graph import alias
from torch_aio.graph.compare import is_same, same_int, same_sizes
from torch_aio.graph.rewrite import Rule, Value, aten, bind, calls, dim, emit, spec, tensor
from torch_aio.ir.shapes import layout
from torch_aio.ir.spec import TensorSpec


def _shaped(node: Node, source: Node, shape: Value) -> Value:
    """A view of ``source`` as ``shape``: itself, ``view``, or ``reshape`` where that copies."""
    old, new = spec(source), spec(node)
    if is_same(old, new) and alias.may_drop_view(node, source):
        return source
    target = aten.reshape.default
    if layout.view_stride(old, new.shape) is not None:
        target = aten.view.default
    if node.target is target:
        return None
    return emit(node.graph, node, target, (source, shape))


def reshape(node: Node) -> Value:
    """reshape(x, s), view(x, s), _unsafe_view(x, s) -> x | view(x, s) | reshape(x, s)."""
    bound = bind(node)
    return _shaped(node, bound["self"], bound.get("size", bound.get("shape")))


def flatten(node: Node) -> Value:
    """flatten(x, a, b) -> view(x, [.., -1, ..]); also unflatten, view_as, reshape_as, ravel."""
    source, out = node.args[0], spec(node)
    assert isinstance(source, Node)
    shape = _static_but_one(out) or _shape_by_reference(node)
    return None if shape is None else _shaped(node, source, shape)


def _static_but_one(out: TensorSpec) -> list[int] | None:
    """The sizes of ``out`` as numbers with at most one -1."""
    holes = [i for i, size in enumerate(out.shape) if not isinstance(size, int)]
    if len(holes) > 1 or (holes and any(s == 0 for s in out.shape if isinstance(s, int))):
        return None
    return [size if isinstance(size, int) else -1 for size in out.shape]


def _shape_by_reference(node: Node) -> list[Value] | None:
    """The sizes of ``node`` as numbers, and int nodes that read them off the inputs."""
    out, sources = spec(node), [a for a in node.args if isinstance(a, Node) and tensor(a)]
    shape: list[Value] = []
    for size in out.shape:
        found = size if isinstance(size, int) else _size_node(node, sources, size)
        if found is None:
            return None
        shape.append(found)
    return shape


def _size_node(node: Node, sources: list[Node], size: Any) -> Node | None:
    for source in sources:
        for d, other in enumerate(spec(source).shape):
            if same_int(size, other):
                return emit(node.graph, node, aten.sym_size.int, (source, d))
    return None


def expand(node: Node) -> Value:
    """expand(x, s) -> x where it has that shape; expand_as(x, y) -> expand(x, sizes)."""
    source = node.args[0]
    assert isinstance(source, Node)
    if is_same(spec(source), spec(node)) and alias.may_drop_view(node, source):
        return source
    if node.target is aten.expand.default:
        return None
    shape = _shape_by_reference(node)
    return None if shape is None else emit(node.graph, node, aten.expand.default, (source, shape))


def transpose(node: Node) -> Value:
    """t, mT, swapaxes, adjoint(x) -> transpose(x, a, b); x where nothing moves."""
    source = node.args[0]
    assert isinstance(source, Node)
    ndim = spec(source).ndim
    if ndim < 2:
        return source if alias.may_drop_view(node, source) else None
    first, second = node.args[1:3] if len(node.args) == 3 else (-2, -1)
    a, b = sorted((dim(first, ndim), dim(second, ndim)))  # type: ignore[arg-type]
    if a == b and alias.may_drop_view(node, source):
        return source
    if node.target is aten.transpose.int and node.args[1:] == (a, b):
        return None
    return emit(node.graph, node, aten.transpose.int, (source, a, b))


def permute(node: Node) -> Value:
    """numpy_T(x), movedim(x, a, b), permute(x, d) -> permute(x, dims >= 0); x where none moves."""
    source = node.args[0]
    assert isinstance(source, Node)
    ndim = spec(source).ndim
    order = _order(node, ndim)
    given: Value = node.args[1] if len(node.args) > 1 else ()
    if order == list(range(ndim)) and alias.may_drop_view(node, source):
        return source
    if node.target is aten.permute.default and list(given) == order:
        return None
    return emit(node.graph, node, aten.permute.default, (source, order))


def _order(node: Node, ndim: int) -> list[int]:
    if node.target is aten.permute.default:
        return _listed(node.args[1], ndim)
    if node.target in (aten.numpy_T.default, aten.mH.default):
        return list(reversed(range(ndim)))
    sources, places = (_listed(a, ndim) for a in node.args[1:3])
    rest = [d for d in range(ndim) if d not in sources]
    order = dict(zip(places, sources, strict=True))
    return [order[d] if d in order else rest.pop(0) for d in range(ndim)]


def _listed(value: Value, ndim: int) -> list[int]:
    return [dim(d, ndim) for d in ([value] if isinstance(value, int) else value)]


def squeeze(node: Node) -> Value:
    """squeeze(x[, d]) -> squeeze(x, [dims of size one]); x where there are none."""
    source = node.args[0]
    assert isinstance(source, Node)
    ndim, shape = spec(source).ndim, spec(source).shape
    named = _listed(node.args[1], ndim) if len(node.args) > 1 else list(range(ndim))
    if any(not isinstance(shape[d], int) for d in named if ndim):
        return None
    dims = [d for d in named if ndim and shape[d] == 1]
    if not dims and alias.may_drop_view(node, source):
        return source
    if node.target is aten.squeeze.dims and list(node.args[1]) == dims:  # type: ignore[arg-type]
        return None
    return emit(node.graph, node, aten.squeeze.dims, (source, dims))


def slice_(node: Node) -> Value:
    """slice(x, d, 0, everything, 1) -> x; narrow(x, d, start, n) -> slice."""
    source = node.args[0]
    assert isinstance(source, Node)
    if is_same(spec(source), spec(node)) and alias.may_drop_view(node, source):
        return source
    if node.target is not aten.narrow.default:
        return None
    _, d, start, length = node.args
    if not isinstance(start, int) or not isinstance(length, int) or start < 0:
        return None
    return emit(node.graph, node, aten.slice.Tensor, (source, d, start, start + length))


def getitem(node: Node) -> Value:
    """getitem(split | chunk | unbind | tensor_split (x), i) -> slice(x, ..) | select(x, d, i)."""
    pieces, index = node.args
    if not isinstance(pieces, Node) or pieces.target not in _SPLITS or not isinstance(index, int):
        return None
    specs = spec(pieces)
    index = index + len(specs) if index < 0 else index
    bound = bind(pieces)
    source, d = bound["self"], dim(bound["dim"], spec(bound["self"]).ndim)
    if calls(pieces, aten.unbind.int):
        return emit(node.graph, node, aten.select.int, (source, d, index))
    sizes = [piece.shape[d] for piece in specs[: index + 1]]
    if not all(isinstance(size, int) for size in sizes):
        return None
    start = sum(sizes[:index])
    if same_sizes(spec(node).shape, spec(source).shape) and alias.may_drop_view(node, source):
        return source
    return emit(node.graph, node, aten.slice.Tensor, (source, d, start, start + sizes[index]))


_SPLITS: tuple[Any, ...] = (
    aten.unbind.int,
    aten.split.Tensor,
    aten.split.sizes,
    aten.split_with_sizes.default,
    aten.unsafe_split.Tensor,
    aten.unsafe_split_with_sizes.default,
    aten.chunk.default,
    aten.unsafe_chunk.default,
    aten.tensor_split.sections,
    aten.tensor_split.indices,
)

RULES: dict[Any, Rule] = {
    **dict.fromkeys((aten.reshape.default, aten.view.default, aten._unsafe_view.default), reshape),
    **dict.fromkeys(
        (
            aten.flatten.using_ints,
            aten.unflatten.int,
            aten.view_as.default,
            aten.reshape_as.default,
            aten.ravel.default,
            aten._reshape_alias.default,
        ),
        flatten,
    ),
    **dict.fromkeys((aten.expand.default, aten.expand_as.default), expand),
    **dict.fromkeys(
        (
            aten.t.default,
            aten.mT.default,
            aten.adjoint.default,
            aten.transpose.int,
            aten.swapaxes.default,
            aten.swapdims.default,
        ),
        transpose,
    ),
    **dict.fromkeys(
        (
            aten.permute.default,
            aten.numpy_T.default,
            aten.movedim.int,
            aten.movedim.intlist,
            aten.moveaxis.int,
            aten.moveaxis.intlist,
        ),
        permute,
    ),
    **dict.fromkeys((aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims), squeeze),
    **dict.fromkeys((aten.slice.Tensor, aten.narrow.default), slice_),
    operator.getitem: getitem,
}
