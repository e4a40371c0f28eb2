"""The captures of one TorchScript graph: by exact shape, then with symbolic sizes.

The first call is captured with its own sizes. The second that differs in some is captured with
symbols for those; from then on every call that takes the same decisions runs that capture. Where
symbols do not work out, each shape gets its own capture, up to a limit; beyond it the original
method runs.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import torch

from torch_aio import log
from torch_aio.capture.ts_call import frozen, template_of
from torch_aio.capture.ts_capture import Entry, Source, compiled, trace
from torch_aio.capture.ts_symbols import Sizes, Symbols, sizes_of, symbolic
from torch_aio.capture.ts_values import Handover
from torch_aio.compiling import uncollected
from torch_aio.errors import CaptureError
from torch_aio.ir.shapes import spec_of

MOST_STATIC = 16  # captures by exact shape, for each pattern of arguments
MOST_SYMBOLIC = 4
MOST_PATTERNS = 32  # other values of ints, floats, strings
MOST_KEYS = 8192  # remembered shapes

_lock = threading.RLock()


@dataclass
class _Pattern:
    """Calls that differ in sizes only."""

    seen: list[Sizes] = field(default_factory=list)
    symbolic: list[tuple[Symbols, Entry]] = field(default_factory=list)
    attempts: int = 0


class Call:
    """(arguments, attributes) of one call, taken apart."""

    def __init__(self, arguments: Any) -> None:
        self.tensors: list[torch.Tensor] = []
        self.ints: list[int] = []
        self.template = template_of(arguments, self.tensors, self.ints)


class Specializer:
    """Entries by key: an Entry, or None where the original method runs."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.entries: dict[Any, Entry | None] = {}
        self.captures = 0
        self._patterns: dict[Any, _Pattern] = {}

    def add(self, key: Any, arguments: Any) -> Entry | None:
        """The entry for a call whose ``key`` is new; ``arguments`` = (arguments, attributes)."""
        with _lock, uncollected():
            if key in self.entries:
                return self.entries[key]
            if len(self.entries) >= MOST_KEYS:
                self.entries = {}
            self.entries[key] = entry = self._find(arguments)
            return entry

    def _find(self, arguments: Any) -> Entry | None:
        call = Call(arguments)
        pattern = self._pattern(call)
        if pattern is None:
            return None
        for symbols, entry in pattern.symbolic:
            if symbols.admits(call.tensors, call.ints):
                return entry
        try:
            return self._with_symbols(pattern, call) or self._static(pattern, call)
        except Handover as reason:
            log.debug("%s: a call runs in TorchScript: %s", self.source.name, reason)
            return None

    def _pattern(self, call: Call) -> _Pattern | None:
        kinds = tuple((t.dtype, t.ndim) for t in call.tensors)
        key = (frozen(call.template), kinds)
        if key not in self._patterns:
            if len(self._patterns) >= MOST_PATTERNS:
                self._notice("its arguments take too many values")
                return None
            self._patterns[key] = _Pattern()
        return self._patterns[key]

    def _with_symbols(self, pattern: _Pattern, call: Call) -> Entry | None:
        if not pattern.seen or pattern.attempts >= MOST_SYMBOLIC:
            return None
        symbols = symbolic(call.tensors, call.ints, pattern.seen[-MOST_STATIC:])
        if symbols is None:
            return None
        pattern.attempts += 1
        for hints in symbols.hints():
            entry = self._symbolic(symbols, hints, call)
            if entry is not None:
                pattern.symbolic.append((symbols, entry))
                pattern.seen.append(sizes_of(call.tensors, call.ints))
                return entry
        pattern.attempts = MOST_SYMBOLIC
        return None

    def _symbolic(self, symbols: Symbols, hints: dict[str, int], call: Call) -> Entry | None:
        symbols.guards.hints = hints
        symbols.guards.facts.clear()
        weights = self._weights(call)
        try:
            with symbols.guards.active():
                form = trace(
                    self.source, call.template, symbols.specs, symbols.ints, symbols, weights
                )
        except CaptureError as reason:
            log.debug("%s: no symbolic sizes: %s", self.source.name, reason)
            return None
        if not symbols.admits(call.tensors, call.ints):
            return None
        self.captures += 1
        return compiled(self.source, form, len(call.tensors), symbols)

    def _static(self, pattern: _Pattern, call: Call) -> Entry | None:
        if len(pattern.seen) >= MOST_STATIC:
            self._notice(f"more than {MOST_STATIC} sizes, and nothing fits them all")
            return None
        specs = [spec_of(t) for t in call.tensors]
        form = trace(self.source, call.template, specs, call.ints, None, self._weights(call))
        entry = compiled(self.source, form, len(specs), None)
        self.captures += 1
        pattern.seen.append(sizes_of(call.tensors, call.ints))
        return entry

    def _weights(self, call: Call) -> dict[int, tuple[str, torch.Tensor]]:
        """Which of a call's tensors are parameters of the module."""
        return {
            leaf.index: (path, call.tensors[leaf.index])
            for path, leaf in zip(self.source.reads, call.template[1], strict=True)
            if path in self.source.weights
        }

    def _notice(self, reason: str) -> None:
        name = self.source.name
        log.notice_once(f"cap {name} {reason}", f"{name}: some calls run in TorchScript: {reason}")


def sizes(symbols: Symbols, arguments: Any) -> dict[str, int]:
    """The values of a call's symbols."""
    call = Call(arguments)
    return symbols.env(call.tensors, call.ints)
