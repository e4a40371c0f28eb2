"""Tuning: the second call times the ways that lowering left open, where they stand in the graph.

Before a network runs, it runs on copies of its inputs: as it is, and with every open question
answered by its second candidate, then its third ... in turns. What a way costs is the sum over the
steps of its question, each at its minimum, with the caches as the network leaves them. Equal layers
ask the same question and are timed together. The call itself runs the old plan.

AIO_TUNE=full also times the nodes of each step in ATen (``engine.against_aten``); steps it runs
faster go back to it where the whole graph gains by that.
"""

from __future__ import annotations

import resource
import threading
from collections.abc import Mapping, Sequence
from time import perf_counter_ns
from typing import Any

import numpy as np
import torch

from torch_aio import cache, cpu, log
from torch_aio.codegen.sources import source_digest
from torch_aio.engine import against_aten, networks
from torch_aio.engine.constants import ConstantPool
from torch_aio.engine.executor import Constants, NetworkItem
from torch_aio.engine.released import has_storage
from torch_aio.engine.variant import Variant
from torch_aio.ir.symbols import bucket_of
from torch_aio.plan.choice import Question
from torch_aio.plan.winners import Winners
from torch_aio.runtime.machine import Machine

MARGIN = 0.97
"""A way has to take less than this share of the best guess's time to replace it."""
TURNS = (3, 8)
"""Fewest and most turns of a comparison; the first warms up."""
SLICE = 20_000_000
"""Nanoseconds in which the system may take a core away once: a run it disturbs more tells nothing
(beside other busy processes steps of 0.1 ms took 8 to 24 ms, at every turn)."""
BUDGET = {"fast": 600_000_000, "full": 6_000_000_000}
"""Nanoseconds of runs in all; beyond them only the fewest turns are taken."""

Call = tuple[Sequence[Any], Mapping[str, int], Constants]
Weights = Mapping[str, torch.Tensor]


def winners(host: Machine, env: Mapping[str, int], level: str) -> Winners | None:
    """The winners of this machine for the sizes ``env``; None where tuning is off."""
    if level == "off":
        return None
    digest = source_digest(("codegen", "kernels", "plan", "runtime")).hex()
    isa = f"{host.isa.name}{host.isa.features}"
    context = f"{cpu.identity()} {isa} {host.team.size()} threads {bucket_of(env)} {digest}"
    return Winners(context, cache.default(), full=level == "full")


class Trial:
    """The ways that ``variant`` left open at sizes ``env``, timed once, at its second call.

    ``failure`` is why timing stopped, if it did; the best guesses stay then.
    """

    def __init__(self, variant: Variant, known: Winners, env: Mapping[str, int]) -> None:
        self.variant, self._winners = variant, known
        self._bucket, self._budget = bucket_of(env), BUDGET["full" if known.full else "fast"]
        self._calls, self._lock = 0, threading.Lock()
        plans = [item.plan for item in variant.networks.values()]
        asked = [choice.question for plan in plans for choice in plan.choices]
        self._open = {q for q in asked if len(known.ways(q)) > 1 and known.find(q) is None}
        steps = against_aten.labelled(variant.parts) if known.full else ()
        self._unsettled = {q: group for q, group in steps if known.find(q) is None}
        self._gains: dict[Question, float] = {}
        self._kept: Call | None = None
        self._times: dict[tuple[Question, str], np.ndarray[Any, Any]] = {}
        self.failure: Exception | None = None

    @property
    def is_due(self) -> bool:
        """Whether there is something to find out."""
        return bool(self._open or self._unsettled)

    def begins(self, env: Mapping[str, int]) -> bool:
        """Whether this call is the one to time: the second of such sizes."""
        if bucket_of(env) != self._bucket:
            return False
        with self._lock:
            self._calls += 1
            return self._calls == 2

    def run(self, call: Call, weights: Weights) -> tuple[Any, ...]:
        """The call's outputs; timed on the way."""
        inputs, env, constants = call
        if not all(map(has_storage, weights.values())):
            self._open, self._unsettled = set(), {}  # nothing is left to pack for a rival

        if self._unsettled:
            copies = [_copied(x) if isinstance(x, torch.Tensor) else x for x in inputs]
            self._kept = copies, env, constants

        def before(item: NetworkItem, tensors: Sequence[torch.Tensor]) -> None:
            if self.failure is not None:
                return
            try:
                self._time(item, tensors, env, weights)
                self._time_aten(item, tensors, env, weights)
            except Exception as error:
                self.failure = error

        return self.variant.executor(inputs, env, constants, before)

    def better(self, weights: Weights) -> Variant | None:
        """The variant with the winners, which are kept; None where the best guesses won."""
        if self.failure is not None:
            return None
        changed = False
        for question in self._open:
            way, ratio = self._winner(question)
            self._winners.keep(question, way)
            if way != question.candidates[0]:
                changed = True
                log.debug(
                    "%s: %s takes %.2f of %s ns",
                    question.text,
                    way,
                    ratio,
                    self._times[question, way][0],
                )
        new = self.variant
        if changed:
            new = new.lowered(ConstantPool(weights), self._winners)
        if self._gains and self._kept is not None:
            new = self._give_back(new, self._kept, weights)
        return None if new is self.variant else new

    def _give_back(self, variant: Variant, call: Call, weights: Weights) -> Variant:
        """The variant without the steps that ATen runs faster, where the whole graph gains."""
        slower = [q for q, gain in sorted(self._gains.items(), key=lambda g: -g[1]) if gain > 0]
        back: list[Question] = []
        for some in (slower, slower[:1]) if len(slower) > 1 else (slower,)[: len(slower)]:
            chosen = set(some)
            asked = against_aten.labelled(variant.parts)
            nodes = [node.name for q, group in asked if q in chosen for node in group]
            rival = variant.without(nodes, ConstantPool(weights), self._winners)
            ratio = _ratio(variant, rival, call, weights)
            log.debug("%d steps back to PyTorch: %.2f of the time", len(some), ratio)
            if ratio < MARGIN:
                variant, back = rival, some
                break
        for question in self._gains:
            whose = against_aten.ATEN if question in back else against_aten.KERNEL
            self._winners.keep(question, whose)
        return variant

    def _winner(self, question: Question) -> tuple[str, float]:
        """The way, and its time over the best guess's."""
        ratios = {
            way: rival / max(guess, 1)
            for way in self._winners.ways(question)[1:]
            for guess, rival in [self._times[question, way]]
        }
        way = min(ratios, key=ratios.__getitem__, default="")
        return (way, ratios[way]) if way and ratios[way] < MARGIN else (question.candidates[0], 1.0)

    def _time_aten(
        self,
        item: NetworkItem,
        tensors: Sequence[torch.Tensor],
        env: Mapping[str, int],
        weights: Weights,
    ) -> None:
        """What each unsettled step of the network takes, beyond what ATen takes for it.

        Nothing is kept where other processes disturbed the runs.
        """
        found = {label: against_aten.question(g) for label, g in against_aten.groups(item).items()}
        if not any(question in self._unsettled for question in found.values()):
            return
        pool = ConstantPool(weights)
        ours, copies = _Contender(item, pool, self.variant.host), [_copied(x) for x in tensors]
        least: dict[str, int] = {}
        for _ in range(TURNS[0]):
            ours.run(tensors, env)
            taken = _preemptions()
            spent = against_aten.times(item, copies, env, pool)
            if _preemptions() - taken <= 1 + sum(spent.values()) // SLICE:
                least = {label: min(t, least.get(label, t)) for label, t in spent.items()}
        if ours.counted < TURNS[0] - 1:
            return
        for label, aten in least.items():
            if found[label] in self._unsettled:
                mine = ours.time({label})
                gain = mine - aten if aten < MARGIN * mine else 0.0
                self._gains[found[label]] = self._gains.get(found[label], 0.0) + gain

    def _time(
        self,
        item: NetworkItem,
        tensors: Sequence[torch.Tensor],
        env: Mapping[str, int],
        weights: Weights,
    ) -> None:
        """Compare the network with rivals that answer its open questions otherwise."""
        steps: dict[Question, set[str]] = {}
        for choice in item.plan.choices:
            if choice.question in self._open:
                steps.setdefault(choice.question, set()).add(choice.label)
        ways = {question: self._winners.ways(question) for question in steps}
        rounds = max(map(len, ways.values()), default=1)
        for n in range(1, rounds):
            answers = {question: named[n] for question, named in ways.items() if n < len(named)}
            pool = ConstantPool(weights)
            rival = self.variant.rival(item, pool, self._winners.but(answers))
            pair = [_Contender(each, pool, self.variant.host) for each in (item, rival)]
            if not _take_turns(pair, tensors, env, self._budget // (rounds - 1)):
                log.debug("nothing is tuned: other processes keep the machine busy")
                self._open.clear()
                return
            for question, way in answers.items():
                spent = np.array([contender.time(steps[question]) for contender in pair])
                self._times[question, way] = self._times.get((question, way), 0) + spent


def _ratio(variant: Variant, rival: Variant, call: Call, weights: Weights) -> float:
    """The time of the whole rival over the variant's, on copies of a call's inputs."""
    inputs, env, _ = call
    least = [float("inf")] * 2
    sides = [(v.executor, v.executor.constants(ConstantPool(weights))) for v in (variant, rival)]
    for _ in range(TURNS[1]):
        for n, (run, constants) in enumerate(sides):
            copies = [_copied(x) if isinstance(x, torch.Tensor) else x for x in inputs]
            start = perf_counter_ns()
            run(copies, env, constants)
            least[n] = min(least[n], perf_counter_ns() - start)
    return least[1] / max(least[0], 1)


class _Contender:
    """A network under the clock; ``least`` are the shortest times of its steps."""

    def __init__(self, item: NetworkItem, pool: ConstantPool, host: Machine) -> None:
        self._plan = item.plan
        self._network = networks.load(item.plan, host, self._take)
        self._packed, _ = item.pack(pool)
        self.counted = 0
        self.least: Any = np.inf
        self._spent: Any = np.inf

    def run(self, tensors: Sequence[torch.Tensor], env: Mapping[str, int]) -> None:
        """Run on copies: a network may write into its inputs."""
        copies = [_copied(tensor) for tensor in tensors]
        taken = _preemptions()
        self._network(copies, env, self._packed)
        if _preemptions() - taken <= 1 + self._spent.sum() // SLICE:
            self.counted += 1
            self.least = np.minimum(self.least, self._spent)

    def time(self, labels: set[str]) -> float:
        """Nanoseconds of the steps with these labels."""
        pairs = zip(self._plan.steps, self.least, strict=True)
        return float(sum(spent for step, spent in pairs if step.label in labels))

    def _take(self, spent: Sequence[int]) -> None:
        self._spent = np.array(spent)


def _preemptions() -> int:
    """How often the system took a core from a thread of this process that was not done."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _take_turns(
    pair: Sequence[_Contender],
    tensors: Sequence[torch.Tensor],
    env: Mapping[str, int],
    budget: int,
) -> bool:
    """Run the pair in turns; whether enough runs of both were undisturbed."""
    fewest, most = TURNS
    start = perf_counter_ns()
    for turn in range(most):
        if turn >= fewest and perf_counter_ns() - start > budget:
            break
        for contender in pair:
            contender.run(tensors, env)
    return all(contender.counted >= fewest - 1 for contender in pair)


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    """A copy with the same strides, gaps and overlaps."""
    if tensor.numel() == 0:
        return tensor
    extent = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    flat = tensor.detach().as_strided((extent,), (1,)).clone()
    return flat.as_strided(tensor.shape, tensor.stride())
