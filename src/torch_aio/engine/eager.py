"""Operators called one at a time, outside of any graph: a network each, for all sizes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from torch_aio import banner, config, log
from torch_aio.compiling import uncollected
from torch_aio.engine.captured import Captured
from torch_aio.engine.constants import ConstantPool
from torch_aio.engine.executor import Constants
from torch_aio.engine.variant import Variant
from torch_aio.ir.spec import TensorSpec, contiguous
from torch_aio.ir.symbols import Int, symbol
from torch_aio.ops.rope import rope as aio_rope
from torch_aio.runtime.machine import machine

F32 = torch.float32

Run = Callable[[Sequence[torch.Tensor]], torch.Tensor]


class EagerOperator:
    """An operator whose result has the spec of its first input; ``specs`` are those of its inputs.

    ``arguments`` makes the operator's arguments from the nodes of the inputs.
    """

    def __init__(
        self,
        target: Any,
        specs: Sequence[TensorSpec],
        arguments: Callable[..., tuple[Any, ...]],
    ) -> None:
        graph = Graph()
        nodes = [graph.placeholder(f"x{i}") for i in range(len(specs))]
        for node, spec in zip(nodes, specs, strict=True):
            node.meta.update(spec=spec)
        call = graph.call_function(target, arguments(*nodes))
        call.meta.update(spec=specs[0])
        graph.output((call,))
        module = GraphModule(torch.nn.Module(), graph)
        self._captured = Captured(module, tuple(range(len(specs))), module.forward, str(target), "")
        self._variants: list[Variant] = []
        self._lock = threading.Lock()

    def run_for(self, sizes: Sequence[int]) -> Run | None:
        """What runs the operator where the symbols s0, s1 .. have these values.

        None where PyTorch has to, and it was said why; raises instead where the user is strict.
        """
        with self._lock:
            return self._made({f"s{i}": size for i, size in enumerate(sizes)})

    @uncollected()
    def _made(self, env: Mapping[str, int]) -> Run | None:
        host, options = machine(), config.Options.from_mapping()
        if host is None:
            return None
        banner.at_first_compile()
        pool = ConstantPool({})
        try:
            variant = next((v for v in self._variants if v.holds(env)), None)
            if variant is None:
                variant = Variant(self._captured, options, host, pool, env)
                self._variants.append(variant)
            constants = variant.executor.constants(pool)
        except Exception as error:
            if options.strict:
                raise
            name = self._captured.name
            log.warning("%s runs on PyTorch: %s: %s", name, type(error).__name__, error)
            return None
        return _native(variant, env, constants)


def rms_norm(rank: int, cols: int, eps: float, *, is_affine: bool) -> EagerOperator:
    """``rms_norm(x)`` or ``rms_norm(x, weight)`` of contiguous f32 tensors of a rank."""
    shape: tuple[Int, ...] = (*(symbol(f"s{i}") for i in range(rank - 1)), cols)
    specs = [contiguous(shape, F32), contiguous((cols,), F32)]
    return EagerOperator(
        torch.ops.aten.rms_norm.default,
        specs if is_affine else specs[:1],
        lambda x, weight=None: (x, [cols], weight, eps),
    )


def rope(
    width: int, theta: Any, dtype: torch.dtype, *, inside: bool, is_shared: bool
) -> EagerOperator:
    """``aio.rope(x, position_ids)`` of tensors of a dtype.

    ``inside``: x is a transposed ``[batch, length, heads, width]``, as projections give it.
    ``is_shared``: one row of positions serves the batch.
    """
    batch, heads, length = (symbol(f"s{i}") for i in range(3))
    x = contiguous((batch, heads, length, width), dtype)
    if inside:
        a, b, c, d = contiguous((batch, length, heads, width), dtype).stride
        x = TensorSpec(x.shape, dtype, (a, c, b, d))
    positions = contiguous((1 if is_shared else batch, length), torch.int64)
    return EagerOperator(aio_rope, [x, positions], lambda x, p: (x, p, theta))


def _native(variant: Variant, env: Mapping[str, int], constants: Constants) -> Run:
    """One call of the only network, or of whatever the variant is made of."""
    sizes, items = dict(env), list(variant.networks.values())
    found = variant.run
    if found is not variant.executor and list(items[0].inputs) == _inputs(variant):
        network, packed = items[0].network, constants.networks[items[0]]
        return lambda inputs: network(inputs, sizes, packed)[0]
    return lambda inputs: found(inputs, sizes, constants)[0]


def _inputs(variant: Variant) -> list[Node]:
    return [node for node in variant.gm.graph.nodes if node.op == "placeholder"]
