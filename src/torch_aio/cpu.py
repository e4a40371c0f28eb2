"""The machine: instruction set features, model, caches, NUMA nodes and what this process may use.

Everything is read from the kernel (`/proc`, `/sys`, the auxiliary vector); nothing is run to try.
What a platform does not tell is empty or None, never an error. Functions that take ``root`` read
the files below it (tests give them other machines).
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ROOT = Path("/")

# Linux lists an x86 feature only where the CPU has it and the OS saves its registers (XCR0).
# Names of /proc/cpuinfo that LLVM spells differently; the others are spelled alike.
_X86_NAMES = {
    "avx_vnni": "avxvnni",
    "avx512_vnni": "avx512vnni",
    "avx512_bf16": "avx512bf16",
    "avx512_fp16": "avx512fp16",
    "avx512_vbmi2": "avx512vbmi2",
    "amx_tile": "amx-tile",
    "amx_int8": "amx-int8",
    "amx_bf16": "amx-bf16",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
}

# Bits of AT_HWCAP and AT_HWCAP2 (Linux, arch/arm64/include/uapi/asm/hwcap.h).
_HWCAP = {"fp": 0, "asimd": 1, "atomics": 8, "fphp": 9, "asimdhp": 10, "asimdrdm": 12}
_HWCAP |= {"asimddp": 20, "sve": 22, "asimdfhm": 23}
_HWCAP2 = {"sve2": 1, "i8mm": 13, "bf16": 14}
_AT_HWCAP, _AT_HWCAP2 = 16, 26

# What LLVM calls the aarch64 features.
_LLVM_NAMES = {
    "fp": "fp-armv8",
    "asimd": "neon",
    "atomics": "lse",
    "fphp": "fullfp16",
    "asimdhp": "fullfp16",
    "asimdrdm": "rdm",
    "asimddp": "dotprod",
    "asimdfhm": "fp16fml",
}

# MIDR implementer and part -> LLVM's name of the core.
_ARM_CORES = {
    (0x41, 0xD0C): "neoverse-n1",
    (0x41, 0xD40): "neoverse-v1",
    (0x41, 0xD49): "neoverse-n2",
    (0x41, 0xD4F): "neoverse-v2",
    (0xC0, 0xAC3): "ampere1",
    (0xC0, 0xAC4): "ampere1a",
    (0xC0, 0xAC5): "ampere1b",
}

_X86_HEADLINE = ("avx2", "avx512f", "avx512vnni", "avxvnni")
_HEADLINE = (*_X86_HEADLINE, "asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve")


@dataclass(frozen=True)
class Model:
    """Which CPU it is; ``core`` is LLVM's name of an Arm core, or empty."""

    vendor: str = "unknown"
    family: int = 0
    model: int = 0
    name: str = ""
    core: str = ""


@dataclass(frozen=True)
class Cache:
    """One cache of the first CPU: bytes, and how many hardware threads share it."""

    level: int
    kind: str
    size: int
    line: int
    share_count: int


@lru_cache(maxsize=1)
def features() -> frozenset[str]:
    """Names of the features of this CPU: LLVM's on x86, the kernel's (HWCAP) on aarch64."""
    if platform.system() != "Linux":
        return frozenset()
    if platform.machine() in ("x86_64", "AMD64"):
        return x86_features(_cpuinfo(ROOT))
    if platform.machine() in ("aarch64", "arm64"):
        return arm_features(*_auxiliary_vector())
    return frozenset()


def x86_features(cpuinfo: dict[str, str]) -> frozenset[str]:
    """The features among the flags of /proc/cpuinfo."""
    flags = cpuinfo.get("flags", "").split()
    return frozenset(_X86_NAMES.get(flag, flag) for flag in flags)


def arm_features(hwcap: int, hwcap2: int) -> frozenset[str]:
    """The features that the two words of the auxiliary vector name."""
    first = {name for name, bit in _HWCAP.items() if hwcap >> bit & 1}
    return frozenset(first | {name for name, bit in _HWCAP2.items() if hwcap2 >> bit & 1})


def llvm_feature(name: str) -> str:
    """What LLVM calls a feature of `features()`."""
    return _LLVM_NAMES.get(name, name)


def _auxiliary_vector() -> tuple[int, int]:
    try:
        getauxval = ctypes.CDLL(None).getauxval
    except (OSError, AttributeError):
        return 0, 0
    getauxval.restype, getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return int(getauxval(_AT_HWCAP)), int(getauxval(_AT_HWCAP2))


@lru_cache(maxsize=4)
def model(root: Path = ROOT) -> Model:
    """The model of the first CPU."""
    info = _cpuinfo(root)
    if "vendor_id" in info:
        family, number = _integer(info.get("cpu family")), _integer(info.get("model"))
        return Model(info["vendor_id"], family, number, info.get("model name", ""))
    if "CPU part" in info:
        implementer, part = _integer(info.get("CPU implementer")), _integer(info["CPU part"])
        vendor = {0x41: "ARM", 0xC0: "Ampere"}.get(implementer, hex(implementer))
        core = _ARM_CORES.get((implementer, part), "")
        return Model(vendor, _integer(info.get("CPU architecture")), part, core, core)
    return Model(name=platform.processor())


def identity() -> str:
    """The CPU model in one word, for keys of measured choices."""
    m = model()
    return f"{m.vendor}-{m.family}-{m.model}-{m.name}".replace(" ", "_")


@lru_cache(maxsize=4)
def caches(root: Path = ROOT) -> tuple[Cache, ...]:
    """The caches of the first CPU, instruction caches aside, innermost first."""
    found = []
    for index in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind = _text(index / "type")
        level, size = _integer(_text(index / "level")), _bytes(_text(index / "size"))
        if kind in ("Data", "Unified") and level and size:
            shared = len(parse_list(_text(index / "shared_cpu_list"))) or 1
            line = _integer(_text(index / "coherency_line_size")) or 64
            found.append(Cache(level, kind.lower(), size, line, shared))
    return tuple(sorted(found, key=lambda cache: cache.level))


def cache_size(level: int, default: int) -> int:
    """The bytes of the data cache of this level, or ``default`` where the platform hides it."""
    return next((cache.size for cache in caches() if cache.level == level), default)


def numa_nodes(root: Path = ROOT) -> tuple[tuple[int, ...], ...]:
    """The CPUs of each NUMA node, by node number; empty where the kernel knows no nodes."""
    folder = root / "sys/devices/system/node"
    numbers = parse_list(_text(folder / "online"))
    return tuple(parse_list(_text(folder / f"node{n}/cpulist")) for n in numbers)


def affinity() -> tuple[int, ...]:
    """The CPUs that the calling thread may run on, ascending."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def first_threads(allowed: tuple[int, ...] | None = None, root: Path = ROOT) -> tuple[int, ...]:
    """One CPU of each core: the first of its hardware threads that is allowed."""
    allowed = affinity() if allowed is None else allowed
    taken: set[int] = set()
    chosen = []
    for cpu in sorted(allowed):
        if cpu not in taken:
            chosen.append(cpu)
            topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
            taken |= {cpu, *parse_list(_text(topology / "thread_siblings_list"))}
    return tuple(chosen)


def cpu_limit(root: Path = ROOT) -> float | None:
    """How many CPUs' time the control group (v2 or v1) grants this process; None: no limit."""
    limits = [
        limit
        for folder in _control_groups(root)
        for limit in (_limit_v2(folder), _limit_v1(folder))
        if limit is not None
    ]
    return min(limits, default=None)


def usable_threads(root: Path = ROOT) -> int:
    """How many threads can run at once: the affinity mask within the control group's limit."""
    limit = cpu_limit(root)
    allowed = len(affinity())
    return allowed if limit is None else max(1, min(allowed, math.ceil(limit)))


def _control_groups(root: Path) -> Iterator[Path]:
    """The folders of this process's CPU control group and of its ancestors."""
    base = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            mounts = [base]
        elif "cpu" in controllers.split(","):
            mounts = [base / "cpu", base / controllers]
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for mount in mounts:
            yield from (mount.joinpath(*parts[:n]) for n in range(len(parts), -1, -1))


def _limit_v2(folder: Path) -> float | None:
    quota, period = [*_text(folder / "cpu.max").split(), "", ""][:2]
    return _ratio(quota, period)


def _limit_v1(folder: Path) -> float | None:
    return _ratio(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float | None:
    """Quota over period; None for "max", -1 and what is not there."""
    if not (quota.isdecimal() and period.isdecimal()) or not int(period):
        return None
    return int(quota) / int(period) or None


def parse_list(text: str) -> tuple[int, ...]:
    """The numbers of a kernel list: `0-2,8` -> (0, 1, 2, 8)."""
    numbers: list[int] = []
    for part in text.split(","):
        low, _, high = part.strip().partition("-")
        if low.isdecimal():
            numbers.extend(range(int(low), (int(high) if high.isdecimal() else int(low)) + 1))
    return tuple(numbers)


def platform_info() -> str:
    """The machine in one line: vendor, family, model, isa, caches."""
    m = model()
    isa = "+".join(name for name in _HEADLINE if name in features()) or "unknown"
    parts = [f"vendor_id={m.vendor}", f"cpu_family={m.family}", f"cpu_model={m.model:#x}"]
    parts.append(f"isa={isa}")
    for c in caches():
        # Linux does not tell whether a cache is inclusive.
        info = f"size={c.size}, inclusive=unknown, share_count={c.share_count}"
        parts.append(f"L{c.level}=CacheInfo({info})")
    return f"PlatformInfo({', '.join(parts)})"


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first CPU's fields of /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in _text(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    return fields


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _integer(text: str | None) -> int:
    """A decimal or 0x number, 0 for anything else."""
    try:
        return int(text or "0", 0)
    except ValueError:
        return 0


def _bytes(text: str) -> int:
    """A size of sysfs: `48K`, `32M` or plain bytes."""
    scale = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:], 0)
    return _integer(text[:-1]) * scale if scale else _integer(text)
