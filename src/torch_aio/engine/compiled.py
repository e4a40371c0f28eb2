"""The compiled graph: owns the plans of one captured graph, its weights and its fallback.

A graph with symbolic sizes may need several variants: each holds under the answers about sizes that
it was made with (its guards). The first call of a variant compiles it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from torch_aio import banner, config, log, switch
from torch_aio.engine.captured import Captured
from torch_aio.engine.constants import ConstantPool
from torch_aio.engine.symbols import SymbolReader
from torch_aio.engine.variant import Variant
from torch_aio.engine.weights import WeightCheck, picker
from torch_aio.runtime.machine import Machine, machine

MOST_VARIANTS = 16
"""Variants of one graph; a call that needs one more runs PyTorch's own code."""


_observers: list[list[CompiledGraph]] = []


@contextmanager
def observed() -> Iterator[list[CompiledGraph]]:
    """Collect the compiled graphs that are called inside."""
    graphs: list[CompiledGraph] = []
    _observers.append(graphs)
    try:
        yield graphs
    finally:
        _observers.remove(graphs)


def compile_graph(captured: Captured, options: config.Options) -> Callable[..., tuple[Any, ...]]:
    """A callable of the same positional arguments that runs the graph on our kernels.

    Without an instruction set of ours it is the fallback.
    """
    host = machine()
    if host is None:
        return lambda *args: tuple(captured.fallback(*args))
    banner.at_first_compile()
    return CompiledGraph(captured, options, host)


class CompiledGraph:
    """Callable on the flat arguments of the captured function; see ``compile_graph``."""

    def __init__(self, captured: Captured, options: config.Options, host: Machine) -> None:
        self.captured, self.options, self._host = captured, options, host
        self.variants: list[Variant] = []
        self._lock = threading.RLock()
        self.failure = ""
        self._pick_inputs = picker(captured.arguments)
        self._symbols = SymbolReader(captured.module)
        live = captured.live
        owned = _constants(captured.module)
        self._owned = {n: t for n, t in owned.items() if n not in live}
        self._pick_live = picker(tuple(live.values()))
        self._check = WeightCheck((*live, *self._owned), [])
        self._pool: ConstantPool | None = None

    def __call__(self, *args: Any) -> tuple[Any, ...]:
        """The flat outputs; falls back to PyTorch where the engine failed or is switched off."""
        if _observers:
            self._report()
        if self.failure or not switch.on:
            return tuple(self.captured.fallback(*args))
        inputs = self._pick_inputs(args)
        env = self._symbols.read(inputs)
        weights = (*self._pick_live(args), *self._owned.values())
        if self._pool is None or not self._check.unchanged(weights):
            self._load_weights(weights)
        variant = next((v for v in self.variants if not v.guarded or v.holds(env)), None)
        if variant is None:
            variant = self._add_variant(env)
            if variant is None:
                return tuple(self.captured.fallback(*args))
        return variant.run(inputs, env)

    def _report(self) -> None:
        for graphs in _observers:
            if self not in graphs:
                graphs.append(self)

    def refresh(self) -> None:
        """Pack every weight again at the next call: for changes that cannot be seen."""
        with self._lock:
            self._check.remember([])

    def _load_weights(self, weights: Sequence[torch.Tensor]) -> None:
        with self._lock:
            named = dict(zip(self._check.names, weights, strict=True))
            if self._pool is None or len(self._check) != len(weights):
                changed = list(named)
            else:
                changed = self._check.changed(weights)
            if self._pool is None:
                self._pool = ConstantPool(named)
            elif changed:
                log.debug("%s: %d weights changed, packing again", self.captured.name, len(changed))
                self._pool = self._pool.update(named, changed)
                for variant in self.variants:
                    variant.load_constants(self._pool, changed)
            self._check.remember(weights)

    def _add_variant(self, env: Mapping[str, int]) -> Variant | None:
        with self._lock:
            for variant in self.variants:
                if variant.holds(env):
                    return variant
            if len(self.variants) >= MOST_VARIANTS:
                log.notice_once(
                    f"variants {id(self)}",
                    f"{self.captured.name}: more than {MOST_VARIANTS} kinds of sizes; "
                    "the rest runs on PyTorch",
                )
                return None
            try:
                assert self._pool is not None
                variant = Variant(self.captured, self.options, self._host, self._pool, env)
            except Exception as error:
                if self.options.strict:
                    raise
                log.warning("%s runs on PyTorch: %s", self.captured.name, error)
                self.failure = str(error)
                return None
            self.variants.append(variant)
            return variant


def _constants(module: torch.fx.GraphModule) -> dict[str, torch.Tensor]:
    names = [str(n.target) for n in module.graph.nodes if n.op == "get_attr"]
    return {name: getattr(module, name) for name in dict.fromkeys(names)}
