"""Choices of a lowering: several ways to take for a step, and the one that was taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """Which of ``candidates`` is fastest, the best guess first.

    ``text`` names all that the answer depends on, beside the machine: family, sizes, epilogue.
    Steps that ask the same share the answer.
    """

    text: str
    candidates: tuple[str, ...]


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
