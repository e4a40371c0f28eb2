"""How option values are spelled: each function takes a spelling and returns its value.

All raise `ValueError`; the text, where there is one, says what is wrong beyond the valid values.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

MAX_THREADS = 4096


class Kind(NamedTuple):
    """A kind of value: its parser, and what is valid, to follow "must be"."""

    parse: Callable[[str], Any]
    valid: str


def flag(text: str) -> bool:
    """`0` or `1`."""
    return {"0": False, "1": True}[text] if text in ("0", "1") else _refuse()


def count(text: str) -> int:
    """A positive integer; a number of threads beyond any machine is a slip."""
    value = count_or_zero(text)
    if not 1 <= value <= MAX_THREADS:
        _refuse(f"not within 1 and {MAX_THREADS}")
    return value


def count_or_zero(text: str) -> int:
    """A decimal integer, 0 or more."""
    return int(text) if text.isascii() and text.isdecimal() else _refuse()


def level(text: str) -> int:
    """`0` to `4`."""
    return int(text) if text in {"0", "1", "2", "3", "4"} else _refuse()


def cpus(text: str) -> tuple[int, ...]:
    """Core numbers separated by spaces, each once."""
    numbers = tuple(count_or_zero(word) for word in text.split())
    if len(set(numbers)) != len(numbers):
        _refuse("a core is named twice")
    return numbers


def regex(text: str) -> str:
    """A regular expression."""
    try:
        re.compile(text)
    except re.error as reason:
        _refuse(str(reason))
    return text


def path(text: str) -> str:
    """A path; `~` is the home folder."""
    try:
        return str(Path(text).expanduser().absolute())
    except RuntimeError as reason:  # no such user, no home folder
        _refuse(str(reason))


def a_string(value: object) -> str:
    """A string given as such."""
    return value if isinstance(value, str) else _refuse("must be a string")


def a_regex(value: object) -> str:
    """A regular expression given as a string."""
    return regex(a_string(value))


def a_flag(value: object) -> bool:
    """A bool, or 0 or 1."""
    if isinstance(value, bool):
        return value
    return bool(value) if value in (0, 1) else _refuse("must be True or False")


def a_switch(value: object) -> bool:
    """A flag, or one of the words `auto` and `off`."""
    if isinstance(value, str):
        return value == "auto" or (value != "off" and _refuse('must be "auto" or "off"'))
    return a_flag(value)


def a_word(*valid: str) -> Callable[[object], str]:
    """One of the words, given as a string."""
    kind = words(*valid)

    def parse(value: object) -> str:
        try:
            return str(kind.parse(a_string(value)))
        except ValueError:
            return _refuse(f"must be {kind.valid}")

    return parse


def a_path(value: object) -> str:
    """A path given as a string or `os.PathLike`; empty for the default."""
    if not isinstance(value, (str, os.PathLike)):
        _refuse("must be a path")
    return path(os.fspath(value)) if os.fspath(value) else ""


def _refuse(reason: str = "") -> NoReturn:
    raise ValueError(reason)


def words(*valid: str) -> Kind:
    """One of the words, in either case."""
    known = {word.lower(): word for word in valid}
    listed = " or ".join(", ".join(valid).rsplit(", ", 1))
    return Kind(lambda text: known[text.lower()] if text.lower() in known else _refuse(), listed)


FLAG = Kind(flag, "0 or 1")
COUNT = Kind(count, "a positive integer")
NUMBER = Kind(count_or_zero, "an integer, 0 or more")
LEVEL = Kind(level, "0, 1, 2, 3 or 4")
CPUS = Kind(cpus, 'core numbers such as "0 1 5"')
REGEX = Kind(regex, 'a regular expression (".*" is all)')
PATH = Kind(path, "a path")
