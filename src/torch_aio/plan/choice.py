"""Choices of a lowering: several ways to take for a step, and the one that was taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """Which of ``candidates`` is fastest, the best guess first.

    ``text`` names all that the answer depends on, beside the machine: family, sizes, epilogue.
    Steps that ask the same share the answer. ``more`` are ways that only AIO_TUNE=full tries.
    """

    text: str
    candidates: tuple[str, ...]
    more: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether there is anything to choose."""
        return len(self.candidates) + len(self.more) > 1


Answer = Callable[[Question], str]


def best_guess(question: Question) -> str:
    """The first candidate: what heuristics prefer."""
    return question.candidates[0]


@dataclass(frozen=True)
class Choice:
    """What was chosen for the steps with label ``label``."""

    question: Question
    chosen: str
    label: str

    def __str__(self) -> str:
        others = (w for w in self.question.candidates + self.question.more if w != self.chosen)
        return f"{self.chosen}; not {', '.join(others)}"
