"""This machine, as generated code meets it: instruction set, JIT, driver, team."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from torch_aio import cache as disk
from torch_aio import config, cpu, log
from torch_aio.codegen import isa as isas
from torch_aio.codegen.isa import Isa
from torch_aio.runtime.driver import compile_driver
from torch_aio.runtime.threads import Team, clock, team
from torch_aio.runtime.watch import Compare, compile_compare

if TYPE_CHECKING:
    from torch_aio.codegen.jit import Jit


@dataclass
class Machine:
    """What runs a network; one a process and instruction set."""

    isa: Isa
    jit: Jit
    run: Callable[[Any], None]
    team: Team

    @cached_property
    def timed_run(self) -> Callable[[Any], None]:
        """The driver that stores the time of each step."""
        return compile_driver(self.jit, self.team.symbols, clock())

    @cached_property
    def differs(self) -> Compare:
        """The comparison behind ``runtime.watch``."""
        return compile_compare(self.jit)


_lock = threading.Lock()


def machine() -> Machine | None:
    """This process's machine; None (and one notice) where there is no instruction set of ours."""
    with _lock:
        return _machine(config.read().isa)


@cache
def _machine(name: str) -> Machine | None:
    features = cpu.features()
    isa = isas.detect(features, name)
    if isa is None:
        wanted = name or "AVX2 with FMA and F16C, or Armv8.2 with fp16"
        log.notice_once("isa", f"this CPU has no {wanted}: torch_aio leaves all work to PyTorch")
        return None
    from torch_aio.codegen.jit import Jit  # noqa: PLC0415 - llvmlite: only where something compiles

    store = disk.default()
    jit = Jit(isa, store.get, store.put)
    threads = team()
    return Machine(isa, jit, compile_driver(jit, threads.symbols), threads)
