"""The networks of a graph: each stage of claimed nodes lowered, its kernels loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from torch.fx import GraphModule, Node

from torch_aio import config
from torch_aio.engine.constants import ConstantPool
from torch_aio.engine.executor import NetworkItem, Part
from torch_aio.errors import CompileError
from torch_aio.graph.cut import networks
from torch_aio.ir.symbols import Guards
from torch_aio.kernels.spec import generate
from torch_aio.plan.choice import Answer
from torch_aio.plan.lower import lower
from torch_aio.plan.plan import Plan
from torch_aio.plan.value import Step
from torch_aio.runtime.machine import Machine
from torch_aio.runtime.network import Network
from torch_aio.runtime.profile import Take, by_step
from torch_aio.runtime.table import Bound


def parts(gm: GraphModule) -> dict[int, Part]:
    """What becomes a network, by stage."""
    return {stage: _part(gm, nodes) for stage, nodes in networks(gm).items()}


def make(
    part: Part, pool: ConstantPool, host: Machine, options: config.Options, answer: Answer
) -> NetworkItem:
    """The network of a part; ``answer`` decides between ways to take."""
    borders = part.nodes, part.inputs, part.outputs
    plan = lower(*borders, pool.packed_value, host.isa, Guards({}), answer, options)
    names = [(step.spec.name, step.label) for step in plan.steps]
    take = by_step(names) if config.read().profiler else None
    return NetworkItem(*borders, plan, load(plan, host, take))


def load(plan: Plan, host: Machine, take: Take | None) -> Network:
    """A plan with its kernels' addresses; see ``Network``."""
    return Network(_binder(plan), _kernels(plan, host), plan.first_constant, host, take)


def _part(gm: GraphModule, nodes: Sequence[Node]) -> Part:
    inside = set(nodes)
    inputs = _ordered(
        source
        for node in nodes
        for source in node.all_input_nodes
        if source not in inside and _is_input(source)
    )
    outputs = [n for n in nodes if any(user not in inside for user in n.users)]
    return Part(tuple(nodes), tuple(inputs), tuple(_in_output_order(gm, outputs)))


def _binder(plan: Plan) -> Callable[[Mapping[str, int]], Bound]:
    """``plan.bind``, whose failures are failures to compile."""

    def bind(env: Mapping[str, int]) -> Bound:
        try:
            return plan.bind(env)
        except Exception as error:
            raise CompileError(f"sizes {dict(env)}: {type(error).__name__}: {error}") from error

    return bind


def _kernels(plan: Plan, host: Machine) -> list[int]:
    return [_kernel(step, host) for step in plan.steps]


def _kernel(step: Step, host: Machine) -> int:
    try:
        return host.jit.address(step.spec.name, partial(generate, step.spec, host.isa))
    except Exception as error:
        what = f"kernel {step.spec.name}: {type(error).__name__}: {error}"
        raise CompileError(what, step.label) from error


def _in_output_order(gm: GraphModule, nodes: Sequence[Node]) -> list[Node]:
    """Network outputs in the order of the graph's, so that one network needs no rearranging."""
    (output,) = (n for n in gm.graph.nodes if n.op == "output")
    rank = {n: i for i, n in reversed(list(enumerate(output.args[0]))) if isinstance(n, Node)}
    return sorted(nodes, key=lambda n: rank.get(n, len(rank)))


def _is_input(node: Node) -> bool:
    verdict = node.meta.get("verdict")
    if node.op == "get_attr" or (verdict and verdict.kind in ("constant", "size")):
        return False
    return hasattr(node.meta["spec"], "dtype")


def _ordered(nodes: Iterable[Node]) -> list[Node]:
    return list(dict.fromkeys(nodes))
