"""Pass ``reinplace``: an update of an input that ends in the input may be written there at once."""

from __future__ import annotations

from torch.fx import GraphModule, Node

from torch_aio.graph import alias
from torch_aio.graph.compare import is_same
from torch_aio.graph.fuel import spend
from torch_aio.graph.rewrite import aten, calls, refuse, spec

UPDATES = (
    aten.index_copy.default,
    aten.slice_scatter.default,
    aten.select_scatter.default,
    aten.scatter.src,
    aten.scatter.value,
    aten.scatter_add.default,
    aten.index_put.default,
    aten.index_fill.int_Scalar,
    aten.masked_fill.Scalar,
)
_NAME = "reinplace"


def reinplace(gm: GraphModule) -> int:
    """new = index_copy(cache, ..); copy_(cache, new) -> the same with new.meta["reinplace"].

    The mark holds the placeholder's name and means: new may be computed in the placeholder's
    memory, because nobody reads the old contents after it. A chain of updates is marked whole or
    not at all.
    """
    position = {node: i for i, node in enumerate(gm.graph.nodes)}
    count = 0
    for node in gm.graph.nodes:
        if not calls(node, aten.copy_.default) or node.args[0].op != "placeholder":
            continue
        place, new = node.args[0], node.args[1]
        chain = _chain(place, new)
        reason = chain if isinstance(chain, str) else _why_not(place, chain, position)
        if isinstance(chain, str) or reason is not None:
            refuse(node, _NAME, str(reason))
            continue
        for update in chain:
            if spend():
                update.meta["reinplace"] = place.name
                count += 1
    return count


def _chain(place: Node, new: Node) -> list[Node] | str:
    """The updates that lead from the placeholder to its new value, first to last."""
    chain: list[Node] = []
    while new is not place:
        if not isinstance(new, Node) or not calls(new, *UPDATES):
            return "the new value is not an update of a part of the input"
        if not is_same(spec(new), spec(place)):
            return "the new value lies in memory in another way than the input"
        chain.insert(0, new)
        new = new.args[0]  # type: ignore[assignment]
    return chain


def _why_not(place: Node, chain: list[Node], position: dict[Node, int]) -> str | None:
    for old, update in zip([place, *chain], chain, strict=False):
        if any(position[reader] > position[update] for reader in _readers(old, update)):
            return "the old contents are read after the update"
        if any(base is place for base in map(alias.base, update.all_input_nodes[1:])):
            return "the update reads the input it changes"
    return None


def _readers(old: Node, update: Node) -> list[Node]:
    """Who reads ``old`` or a view of it, besides the update and the write back into it."""
    return [
        user
        for view in alias.views(old)
        for user in view.users
        if user is not update and not alias.is_write(user) and not alias.is_view(user)
    ]
