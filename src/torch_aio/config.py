"""ONE table of every option: variable, type, default, help, whether it enters the cache key.

The table is the class `Settings`: each field is a row. `read()` parses the environment afresh;
nothing else in the package looks at it. `Options` are the settings of one compile, by keyword.
"""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from torch_aio import log, parse
from torch_aio.errors import ConfigError
from torch_aio.parse import Kind

PREFIX = "AIO_"
TUNE = ("off", "fast", "full")


def _row(
    default: Any, kind: Kind, text: str, *, cache_key: bool = False, later: Any = MISSING
) -> Any:
    """A row; ``later``: its feature is still to come, and this value asks for nothing of it."""
    metadata = {"kind": kind, "help": text, "key": cache_key, "later": later}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, eq=False)  # what is not generated is not paid by `import torch`
class Settings:
    """The values of all AIO_* variables; ``given`` names those that were set."""

    process_mode: bool = _row(True, parse.FLAG, "engine on or off")
    num_threads: int | None = _row(None, parse.COUNT, "threads of PyTorch and the engine")
    cpu_bind: bool = _row(True, parse.FLAG, "bind each engine thread to one core")
    mem_bind: bool = _row(True, parse.FLAG, "bind engine memory to NUMA node 0 (where set)")
    numa_cpus: tuple[int, ...] | None = _row(
        None, parse.CPUS, "cores to use, the first N for N threads"
    )
    debug_mode: int = _row(log.DEFAULT_LEVEL, parse.LEVEL, "messages: 0 none to 4 all")
    implicit_fp16_transform_filter: str = _row(
        "", parse.REGEX, "operators whose name matches run in fp16", cache_key=True, later=""
    )
    quantize_int8_filter: str = _row(
        "", parse.REGEX, "operators whose name matches run in int8", cache_key=True
    )
    quantize_int8: str = _row(
        "", parse.words("ALL"), 'old spelling of AIO_QUANTIZE_INT8_FILTER=".*"'
    )
    quantize_int8_convert_out_dtype: str = _row(
        "", parse.words("FP16"), "int8 results go straight to fp16", cache_key=True, later=""
    )
    merge_linear: bool = _row(
        True, parse.FLAG, "merge linears that read the same input", cache_key=True
    )
    skip_master_thread: bool = _row(
        False, parse.FLAG, "no effect: PyTorch and the engine share one team"
    )
    profiler: bool = _row(False, parse.FLAG, "collect a profile by operator")
    strict: bool = _row(False, parse.FLAG, "raise where the engine would fall back to PyTorch")
    release_weights: bool = _row(
        False, parse.FLAG, "give the memory of the original weights back once they are packed"
    )
    winograd: bool = _row(
        True,
        parse.FLAG,
        "Winograd convolutions and Strassen products where they are faster",
        cache_key=True,
    )
    tune: str = _row(
        "fast",
        parse.words(*TUNE),
        "time candidates at the second call",
        cache_key=True,
    )
    isa: str = _row(
        "",
        parse.words("avx2", "avx512", "neon"),
        "instruction set to use instead of the best one",
        cache_key=True,
    )
    cache_dir: str = _row("", parse.PATH, "folder of compiled kernels (default ~/.cache/torch_aio)")
    fuel: int | None = _row(
        None, parse.NUMBER, "stop rewriting graphs after so many rewrites", cache_key=True
    )
    given: frozenset[str] = frozenset()

    @property
    def int8_filter(self) -> str:
        """The int8 filter in either spelling."""
        return self.quantize_int8_filter or (".*" if self.quantize_int8 else "")

    @property
    def cache_path(self) -> Path:
        """The folder of the on-disk cache."""
        if self.cache_dir:
            return Path(self.cache_dir)
        try:
            return Path.home() / ".cache" / "torch_aio"
        except RuntimeError:  # a container's user without a home folder
            return Path(tempfile.gettempdir()) / f"torch_aio-{os.getuid()}"


class Option(NamedTuple):
    """One row of the table: an AIO_* variable."""

    name: str
    attribute: str
    default: Any
    kind: Kind
    help: str
    cache_key: bool
    later: Any

    @property
    def in_effect(self) -> bool:
        """Whether its feature exists."""
        return self.later is MISSING

    def parse(self, text: str) -> Any:
        """The value that ``text`` spells; an empty text is the default."""
        if not text.strip():
            return self.default
        try:
            return self.kind.parse(text.strip())
        except ValueError as reason:
            detail = f" ({reason})" if str(reason) else ""
            raise ConfigError(f"{self.name}={text!r}: must be {self.kind.valid}{detail}") from None


OPTIONS: tuple[Option, ...] = tuple(
    Option(
        name=PREFIX + f.name.upper(),
        attribute=f.name,
        default=f.default,
        kind=f.metadata["kind"],
        help=f.metadata["help"],
        cache_key=f.metadata["key"],
        later=f.metadata["later"],
    )
    for f in fields(Settings)
    if f.metadata
)

_NAMES = (*(option.name for option in OPTIONS), "OMP_NUM_THREADS")
_memo: tuple[tuple[str | None, ...], Settings] | None = None


def read() -> Settings:
    """The settings of this moment; raises `ConfigError` for a value that cannot be used.

    Parses only when a variable changed (12 us for the look).
    """
    global _memo  # noqa: PLW0603 - the memo of one process
    raw = tuple(os.environ.get(name) for name in _NAMES)
    memo = _memo
    if memo is not None and memo[0] == raw:
        return memo[1]
    values = {o.attribute: o.parse(text) for o, text in zip(OPTIONS, raw, strict=False) if text}
    given = frozenset(values)
    settings = Settings(**values, given=given)
    log.set_level(settings.debug_mode)
    _check_threads(settings, raw[-1])
    _notices(settings)
    _memo = (raw, settings)
    return settings


def openmp_binds() -> bool:
    """Whether the user told the OpenMP runtime where its threads belong."""
    if os.environ.get("OMP_PROC_BIND", "false").strip().lower() not in ("", "false"):
        return True
    return any(os.environ.get(name) for name in ("OMP_PLACES", "GOMP_CPU_AFFINITY"))


def _check_threads(settings: Settings, omp: str | None) -> None:
    first = (omp or "").split(",")[0].strip()
    if settings.num_threads is None or not first.isdecimal():
        return
    if int(first) != settings.num_threads:
        raise ConfigError(
            f"AIO_NUM_THREADS={settings.num_threads} contradicts OMP_NUM_THREADS={omp}: "
            "set both to the same number, or only one of them"
        )


def _notices(settings: Settings) -> None:
    """Say once each what is unknown, old or not yet in effect among the variables set."""
    known = {option.name for option in OPTIONS}
    for name in os.environ:
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; `aio info` lists the known ones"
            log.notice_once(f"unknown {name}", f"{name} is no variable of torch-aio{hint}")
    if settings.quantize_int8:
        text = 'AIO_QUANTIZE_INT8 is an old spelling: use AIO_QUANTIZE_INT8_FILTER=".*"'
        log.notice_once("quantize_int8", text)
    for option in OPTIONS:
        value = getattr(settings, option.attribute)
        if option.attribute in settings.given and not option.in_effect and value != option.later:
            log.notice_once(f"later {option.name}", f"{option.name} is not yet in effect")


@dataclass(frozen=True)
class Options:
    """The options of one compile: `torch.compile(..., options={...})`.

    ``modelname``: parts compiled under one name share packed weights; the others are the AIO_*
    variables of the same meaning, which they override for this compile. ``winograd`` may be spelled
    "auto" or "off"; ``tune`` is off, fast or full.
    """

    modelname: str = ""
    fp16_filter: str = ""
    int8_filter: str = ""
    merge_linear: bool = True
    winograd: bool = True
    cache_dir: str = ""
    strict: bool = False
    release_weights: bool = False
    tune: str = "fast"

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any] | None = None) -> Options:
        """Options from the user's mapping; a key not in it falls back to its AIO_* setting."""
        settings = read()
        values: dict[str, Any] = {
            "fp16_filter": settings.implicit_fp16_transform_filter,
            "int8_filter": settings.int8_filter,
            "merge_linear": settings.merge_linear,
            "winograd": settings.winograd,
            "cache_dir": str(settings.cache_path),
            "strict": settings.strict,
            "release_weights": settings.release_weights,
            "tune": settings.tune,
        }
        for key, value in (mapping or {}).items():
            if key not in _CHECKS:
                near = difflib.get_close_matches(str(key), _CHECKS, n=1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                valid = ", ".join(_CHECKS)
                raise ConfigError(f"unknown option {key!r}{hint}; valid options: {valid}")
            try:
                values[key] = _CHECKS[key](value)
            except ValueError as reason:
                raise ConfigError(f"option {key}={value!r}: {reason}") from None
        return cls(**values)


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "modelname": parse.a_string,
    "fp16_filter": parse.a_regex,
    "int8_filter": parse.a_regex,
    "merge_linear": parse.a_flag,
    "winograd": parse.a_switch,
    "cache_dir": parse.a_path,
    "strict": parse.a_flag,
    "release_weights": parse.a_flag,
    "tune": parse.a_word(*TUNE),
}
