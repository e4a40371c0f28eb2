"""The captures of one TorchScript graph: by exact shape, then with symbolic sizes.

The first call is captured with its own sizes. The second that differs in some is captured with
symbols for those; from then on every call that takes the same decisions runs that capture. Where
symbols do not work out, each shape gets its own capture, up to a limit; beyond it the original
method runs.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from torch_aio import log
from torch_aio.capture.ts_call import frozen, template_of
from torch_aio.capture.ts_capture import Entry, Source, compiled, trace
from torch_aio.capture.ts_symbols import Shapes, Symbols, symbolic
from torch_aio.capture.ts_values import Handover
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

    seen: list[Shapes] = field(default_factory=list)
    symbolic: list[tuple[Symbols, Entry]] = field(default_factory=list)
    attempts: int = 0


class Specializer:
    """Entries by key: an Entry, or None where the original method runs."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.entries: dict[Any, Entry | None] = {}
        self.captures = 0
        self._patterns: dict[Any, _Pattern] = {}

    def add(self, key: Any, arguments: Any) -> Entry | None:
        """The entry for a call whose ``key`` is new; ``arguments`` = (arguments, attributes)."""
        with _lock:
            if key in self.entries:
                return self.entries[key]
            if len(self.entries) >= MOST_KEYS:
                self.entries = {}
            self.entries[key] = entry = self._find(arguments)
            return entry

    def _find(self, arguments: Any) -> Entry | None:
        tensors: list[torch.Tensor] = []
        template = template_of(arguments, tensors)
        pattern = self._pattern(template, tensors)
        if pattern is None:
            return None
        for symbols, entry in pattern.symbolic:
            if symbols.admits(tensors):
                return entry
        try:
            found = self._with_symbols(pattern, template, tensors)
            return found or self._static(pattern, template, tensors)
        except Handover as reason:
            log.debug("%s: a call runs in TorchScript: %s", self.source.name, reason)
            return None

    def _pattern(self, template: Any, tensors: Sequence[torch.Tensor]) -> _Pattern | None:
        kinds = tuple((t.dtype, t.ndim) for t in tensors)
        key = (frozen(template), kinds)
        if key not in self._patterns:
            if len(self._patterns) >= MOST_PATTERNS:
                self._notice("its arguments take too many values")
                return None
            self._patterns[key] = _Pattern()
        return self._patterns[key]

    def _with_symbols(
        self, pattern: _Pattern, template: Any, tensors: Sequence[torch.Tensor]
    ) -> Entry | None:
        if not pattern.seen or pattern.attempts >= MOST_SYMBOLIC:
            return None
        symbols = symbolic(tensors, pattern.seen[-MOST_STATIC:])
        if symbols is None:
            return None
        pattern.attempts += 1
        for hints in symbols.hints():
            entry = self._symbolic(symbols, hints, template, tensors)
            if entry is not None:
                pattern.symbolic.append((symbols, entry))
                pattern.seen.append(_shapes(tensors))
                return entry
        pattern.attempts = MOST_SYMBOLIC
        return None

    def _symbolic(
        self, symbols: Symbols, hints: dict[str, int], template: Any, tensors: Sequence[torch.Tensor]
    ) -> Entry | None:
        symbols.guards.hints = hints
        symbols.guards.facts.clear()
        try:
            with symbols.guards.active():
                form = trace(self.source, template, symbols.specs, symbols)
        except CaptureError as reason:
            log.debug("%s: no symbolic sizes: %s", self.source.name, reason)
            return None
        if not symbols.admits(tensors):
            return None
        self.captures += 1
        return compiled(self.source, form, len(tensors))

    def _static(
        self, pattern: _Pattern, template: Any, tensors: Sequence[torch.Tensor]
    ) -> Entry | None:
        if len(pattern.seen) >= MOST_STATIC:
            self._notice(f"more than {MOST_STATIC} shapes, and none fits them all")
            return None
        form = trace(self.source, template, [spec_of(t) for t in tensors], None)
        entry = compiled(self.source, form, len(tensors))
        self.captures += 1
        pattern.seen.append(_shapes(tensors))
        return entry

    def _notice(self, reason: str) -> None:
        name = self.source.name
        log.notice_once(f"cap {name} {reason}", f"{name}: some calls run in TorchScript: {reason}")


def _shapes(tensors: Sequence[torch.Tensor]) -> Shapes:
    return tuple(tuple(t.shape) for t in tensors)
