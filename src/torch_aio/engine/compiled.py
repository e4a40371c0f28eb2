"""The compiled graph: owns the plans of one captured graph, its weights and its fallback.

A graph with symbolic sizes may need several variants: each holds under the answers about sizes that
it was made with (its guards). The first call of a variant compiles it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from operator import is_
from typing import Any

import torch

from torch_aio import banner, config, log, switch
from torch_aio.compiling import clock, stage, uncollected
from torch_aio.engine.captured import Captured, weight_specs
from torch_aio.engine.constants import ConstantPool
from torch_aio.engine.executor import Constants
from torch_aio.engine.packs import STORE
from torch_aio.engine.released import MESSAGE, named, trim
from torch_aio.engine.symbols import SymbolReader
from torch_aio.engine.tuning import Call, Trial, winners
from torch_aio.engine.variant import Variant
from torch_aio.engine.weights import WeightState, misfit, picker, watch
from torch_aio.errors import CompileError, ReleasedError
from torch_aio.plan.choice import best_guess
from torch_aio.runtime.machine import Machine, machine

MOST_VARIANTS = 16
"""Variants of one graph; a call that needs one more runs PyTorch's own code."""
MOST_STATES = 64
"""States of the weights kept packed: torch.compile runs equal layers of a model by one graph."""
MOST_SIZES = 4096
"""Sizes of which the variant is remembered."""

profiler_enabled = torch._C._autograd._profiler_enabled

Calls = dict["CompiledGraph", tuple[tuple[Any, ...], dict[str, torch.Tensor]]]
_observers: list[list[CompiledGraph]] = []
_recorders: list[Calls] = []


@contextmanager
def recorded() -> Iterator[Calls]:
    """Collect the inputs (copies) and weights by name of the last call of each graph inside."""
    calls: Calls = {}
    _recorders.append(calls)
    try:
        with observed():
            yield calls
    finally:
        _recorders.remove(calls)


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
    """Callable on the flat arguments of the captured function; see ``compile_graph``.

    ``_current`` is the weights of the last call and their state, replaced as one: each call runs
    with the state of its own weights, also while another thread brings others.
    """

    def __init__(self, captured: Captured, options: config.Options, host: Machine) -> None:
        self.captured, self.options, self._host = captured, options, host
        self.variants: list[Variant] = []
        self.failure = ""
        self._lock = threading.RLock()
        self._pick_inputs = picker(captured.arguments)
        self._symbols = SymbolReader(captured.module)
        self._by_size: dict[tuple[int, ...], Variant] = {}
        specs = weight_specs(captured.module)
        self._names = (*captured.live, *(n for n in specs if n not in captured.live))
        self._specs = [specs.get(name) for name in self._names]
        self._pick_live = picker(tuple(captured.live.values()))
        self._is_bound = captured.bound is not None
        self._owned = tuple(getattr(captured.module, n) for n in self._names[len(captured.live) :])
        self._trials: dict[Variant, Trial] = {}
        self._states: dict[tuple[int, ...], WeightState] = {}
        self._current: tuple[Sequence[torch.Tensor], WeightState | None] = ((), None)
        watch(self)

    def __call__(self, *args: Any) -> tuple[Any, ...]:
        """The flat outputs; falls back to PyTorch where the engine failed or is switched off."""
        if _observers:
            self._report(args)
        if self.failure or not switch.on:
            return self._fallback(args)
        if profiler_enabled():
            with torch.profiler.record_function(f"torch_aio::{self.captured.name}"):
                return self._run(args)
        return self._run(args)

    def _run(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        inputs = self._pick_inputs(args)
        env = self._symbols.read(inputs)
        state = self._state_for(args)
        if state is None:
            return self._fallback(args)
        try:
            variant = self._by_size.get(tuple(env.values())) or self._find(env, args)
            if variant is None:
                return self._fallback(args)
            constants = state.packs.get(variant) or self._pack(variant, state, args)
            if self._trials and (trial := self._trials.get(variant)) and trial.begins(env):
                return self._tune(trial, state, args, (inputs, env, constants))
            return variant.run(inputs, env, constants)
        except CompileError as error:
            self._fail(error)
            return self._fallback(args)

    def _state_for(self, args: tuple[Any, ...]) -> WeightState | None:
        """The state of the weights of a call; None where they do not fit."""
        known, state = self._current
        if self._is_bound and state is not None and state.holds():
            return state
        weights = self._weights(args)
        if state is None or not (all(map(is_, weights, known)) and state.unmodified(weights)):
            return self._state_of(weights)
        return state

    def _weights(self, args: Sequence[Any]) -> tuple[torch.Tensor, ...]:
        """The weights of a call, in the order of the names."""
        return self._pick_live(self.captured.carriers(args)) + self._owned

    def _by_name(self, args: Sequence[Any]) -> dict[str, torch.Tensor]:
        return dict(zip(self._names, self._weights(args), strict=True))

    def refresh(self) -> None:
        """Pack every weight again at the next call: for changes that cannot be seen.

        Raises ReleasedError where weights were released.
        """
        with self._lock:
            self._states = {key: s for key, s in self._states.items() if s.released}
            self._current = (), None
        if self._states:
            raise ReleasedError(f"{self.captured.name}: {MESSAGE}")

    def _fallback(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        with named(self.captured.name):
            return tuple(self.captured.fallback(*args))

    @contextmanager
    def otherwise(self, **options: Any) -> Iterator[None]:
        """Compile and run with other options for a while, for a comparison."""
        with self._lock:
            kept = self.options, self.variants, self._by_size, self._trials
            self.options, self.variants = replace(kept[0], **options), []
            self._by_size, self._trials = {}, {}
            try:
                yield
            finally:
                self.options, self.variants, self._by_size, self._trials = kept
                self._forget_packs()

    def _forget_packs(self) -> None:
        """Let go of what was packed for variants that are no more."""
        for state in self._states.values():
            for variant in [v for v in state.packs if v not in self.variants]:
                del state.packs[variant]

    def _report(self, args: tuple[Any, ...]) -> None:
        for graphs in _observers:
            if self not in graphs:
                graphs.append(self)
        for calls in _recorders:
            inputs = (
                x.clone() if isinstance(x, torch.Tensor) else x for x in self._pick_inputs(args)
            )
            calls[self] = tuple(inputs), self._by_name(args)

    def _fail(self, error: Exception) -> None:
        """Leave the graph to PyTorch from now on; raises instead where the user is strict."""
        if self.options.strict:
            raise error
        log.warning("%s runs on PyTorch: %s", self.captured.name, error)
        self.failure = str(error) or type(error).__name__

    def _state_of(self, weights: Sequence[torch.Tensor]) -> WeightState | None:
        """The state for these weights: a known one, or a new one; None if they do not fit."""
        key = tuple(map(id, weights))
        state = self._states.get(key)
        if state is None or not (state.same(weights) and state.unmodified(weights)):
            with self._lock:
                if text := misfit(self._names, self._specs, weights):
                    text = f"{self.captured.name} runs on PyTorch while {text}: compile it again"
                    log.notice_once(f"weights {id(self)}", text)
                    return None
                state = WeightState(weights, state)
                kept = [item for item in self._states.items() if item[1].lasts()]
                if not self.options.release_weights:
                    kept = kept[1 - MOST_STATES :]
                self._states = {**dict(kept), key: state}
        self._current = () if self._is_bound else weights, state
        return state

    def _pack(self, variant: Variant, state: WeightState, args: tuple[Any, ...]) -> Constants:
        with self._lock:
            constants: Constants | None = state.packs.get(variant)
            if constants is None:
                log.debug("%s: weights are packed", self.captured.name)
                constants = self._keep(variant, state, ConstantPool(self._by_name(args)))
            return constants

    def _keep(self, variant: Variant, state: WeightState, pool: ConstantPool) -> Constants:
        """Pack for the variant; then the originals have done their duty, if the user says so."""
        with named(self.captured.name):
            constants = state.packs[variant] = variant.executor.constants(pool)
        state.before = None
        if self.options.release_weights and variant not in self._trials:
            state.release(tuple(pool.weights.values()))
            STORE.keep(constants.packs)
        return constants

    def _tune(
        self, trial: Trial, state: WeightState, args: tuple[Any, ...], call: Call
    ) -> tuple[Any, ...]:
        """Run a call; behind it the variant that its timings prefer replaces the old one."""
        by_name, old = self._by_name(args), trial.variant
        try:
            outputs = trial.run(call, by_name)
            new = trial.better(by_name) or old
        finally:
            del self._trials[old]
        if new is not old or self.options.release_weights:
            self._keep(new, state, ConstantPool(by_name))
        with self._lock:
            self.variants = [new if variant is old else variant for variant in self.variants]
            self._by_size = {}
            self._forget_packs()
        trim()
        if trial.failure is not None:
            log.warning("%s is not tuned: %s", self.captured.name, trial.failure)
            if self.options.strict:
                raise trial.failure
        return outputs

    def _find(self, env: Mapping[str, int], args: tuple[Any, ...]) -> Variant | None:
        """The variant for these sizes, compiled if there is none yet; None beyond the limit."""
        with self._lock:
            variant = next((v for v in self.variants if v.holds(env)), None)
            if variant is None:
                if len(self.variants) >= MOST_VARIANTS:
                    text = f"more than {MOST_VARIANTS} kinds of sizes; the rest runs on PyTorch"
                    log.notice_once(f"variants {id(self)}", f"{self.captured.name}: {text}")
                    return None
                variant = self._compile(env, args)
                self.variants.append(variant)
            if len(self._by_size) >= MOST_SIZES:
                self._by_size = {}
            self._by_size[tuple(env.values())] = variant
            return variant

    @uncollected()
    def _compile(self, env: Mapping[str, int], args: tuple[Any, ...]) -> Variant:
        pool = ConstantPool(self._by_name(args))
        known, jit = winners(self._host, env, self.options.tune), self._host.jit
        before = jit.compiled, jit.loaded
        try:
            with named(self.captured.name), clock() as spent, stage("lowering"):
                answer = known or best_guess
                variant = Variant(self.captured, self.options, self._host, pool, env, answer)
                variant = variant.settled(pool, known)
                if known is not None and (trial := Trial(variant, known, env)).is_due:
                    self._trials[variant] = trial
                _, state = self._current
                if state is not None and state.same(tuple(pool.weights.values())):
                    self._keep(variant, state, pool)
        except (CompileError, ReleasedError):
            raise
        except Exception as error:
            raise CompileError(f"{type(error).__name__}: {error}") from error
        log.debug(self.captured.took(spent, jit.compiled - before[0], jit.loaded - before[1]))
        return variant
