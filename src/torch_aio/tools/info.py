"""`aio info`: what the engine sees of this machine and how it is set up."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

import llvmlite
import llvmlite.binding as llvm
import torch

from torch_aio import cache, config, cpu
from torch_aio.codegen import isa
from torch_aio.version import VERSION

Rows = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Info:
    """Sections of (name, value) rows; `str(info)` is the page that `aio info` prints."""

    sections: tuple[tuple[str, Rows], ...]

    def __getitem__(self, section: str) -> dict[str, str]:
        """The rows of one section."""
        return dict(dict(self.sections)[section])

    def __str__(self) -> str:
        """Section by section, values in one column."""
        width = max(len(name) for _, rows in self.sections for name, _ in rows)
        lines = []
        for title, rows in self.sections:
            lines += ["", title, *(f"  {name:{width}}  {value}".rstrip() for name, value in rows)]
        return "\n".join(lines[1:])


def info() -> Info:
    """Versions, platform, settings and cache of this process."""
    return Info(
        (
            ("Versions", _versions()),
            ("Platform", _platform()),
            ("Settings", _settings()),
            ("Cache", _cache()),
        )
    )


def _versions() -> Rows:
    return (
        ("torch-aio", VERSION),
        ("PyTorch", torch.__version__),
        ("llvmlite", f"{llvmlite.__version__} (LLVM {'.'.join(map(str, llvm.llvm_version_info))})"),
        ("Python", platform.python_version()),
        ("system", f"{platform.system()} {platform.machine()}"),
    )


def _platform() -> Rows:
    found = isa.detect(cpu.features(), config.read().isa)
    model, limit = cpu.model(), cpu.cpu_limit()
    caches = (f"L{c.level} {c.size >> 10} KiB (shared by {c.share_count})" for c in cpu.caches())
    nodes = (f"{n}: {len(cpus)} CPUs" for n, cpus in enumerate(cpu.numa_nodes()))
    return (
        ("CPU", f"{model.name or 'unknown'} ({model.vendor} {model.family}/{model.model:#x})"),
        ("instruction set", found.name if found else "none that the engine knows: it is off"),
        ("caches", ", ".join(caches) or "unknown"),
        ("NUMA nodes", ", ".join(nodes) or "unknown"),
        ("CPUs allowed", f"{len(cpu.affinity())} ({len(cpu.first_threads())} cores)"),
        ("control group limit", "none" if limit is None else f"{limit:g} CPUs"),
        ("PyTorch threads", str(torch.get_num_threads())),
    )


def _settings() -> Rows:
    settings = config.read()
    return tuple((option.name, _shown(option, settings)) for option in config.OPTIONS)


def _shown(option: config.Option, settings: config.Settings) -> str:
    value = getattr(settings, option.attribute)
    if isinstance(value, tuple):
        text = " ".join(map(str, value))
    else:
        text = "" if value is None else str(int(value) if isinstance(value, bool) else value)
    origin = "set" if option.attribute in settings.given else "default"
    later = "" if option.in_effect else ", not yet in effect"
    return f"{text or '-':8}  {option.help} ({origin}{later}; {option.kind.valid})"


def _cache() -> Rows:
    store = cache.default()
    usable = os.access(store.folder, os.R_OK | os.W_OK | os.X_OK)
    size = f"{store.size() / 1e6:.1f} MB of at most {store.limit >> 20} MiB" if usable else "-"
    return (("folder", str(store.folder)), ("size", size))
