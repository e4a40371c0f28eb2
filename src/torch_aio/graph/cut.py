"""Networks: maximal runs of our nodes between nodes that are left to ATen.

Every node gets a stage: ours an even one, the others an odd one, such that operands come from the
same or an earlier stage. All our nodes of one stage form one network.

    a = ours(x); b = aten(a); c = ours(a); d = ours(b, c)   ->   {a, c} | b | {d}

A view of ours that leaves its network is repeated where it is used: tensors that cross a border
are whole, and views that reach an output are PyTorch's own.
"""

from __future__ import annotations

from torch.fx import GraphModule, Node

from torch_aio.graph.claim import Verdict

OUTSIDE = Verdict("outside", "a view that leaves its network is PyTorch's own")


def cut(gm: GraphModule) -> int:
    """Write meta["stage"] of every operation; returns how many networks there are."""
    for node in gm.graph.nodes:
        if node.op == "call_function":
            node.meta["stage"] = _stage(node)
    final = 1 + max((n.meta.get("stage", 0) for n in gm.graph.nodes), default=0)
    final += 1 - final % 2
    for node in gm.graph.nodes:
        if node.op == "output" or _mutates(node):
            node.meta["stage"] = final
    for node in reversed(list(gm.graph.nodes)):
        if node.op == "call_function" and node.meta["verdict"].kind == "view":
            _repeat(gm, node)
    return len(networks(gm))


def networks(gm: GraphModule) -> dict[int, list[Node]]:
    """The nodes of each network, in graph order, by stage."""
    result: dict[int, list[Node]] = {}
    for node in gm.graph.nodes:
        if node.op == "call_function" and node.meta["verdict"].is_ours:
            result.setdefault(node.meta["stage"], []).append(node)
    return dict(sorted(result.items()))


def _stage(node: Node) -> int:
    verdict: Verdict = node.meta["verdict"]
    if verdict.kind == "constant":
        return 0
    odd = 0 if verdict.is_ours else 1
    stage = odd
    # A network reads sizes from its inputs: size nodes do not delay it.
    ready = ("constant", "size") if verdict.is_ours else ("constant",)
    for source in node.all_input_nodes:
        if source.op == "call_function" and source.meta["verdict"].kind not in ready:
            before: int = source.meta["stage"]
            stage = max(stage, before + (before % 2 != odd))
    return stage


def _mutates(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _repeat(gm: GraphModule, view: Node) -> None:
    """Give every other stage that uses ``view`` a copy of its own."""
    copies: dict[int, Node] = {}
    for user in list(view.users):
        stage: int = user.meta["stage"]
        if stage == view.meta["stage"]:
            continue
        if stage not in copies:
            with gm.graph.inserting_after(view):
                copies[stage] = gm.graph.node_copy(view, lambda n: n)
            copies[stage].meta = dict(view.meta, stage=stage)
            if stage % 2:
                copies[stage].meta["verdict"] = OUTSIDE
        user.replace_input_with(view, copies[stage])
    if not view.users:
        gm.graph.erase_node(view)
