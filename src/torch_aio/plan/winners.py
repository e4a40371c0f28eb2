"""Measured answers to questions of lowering, kept for this machine among the compiled kernels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch_aio.cache import DiskCache
from torch_aio.plan.choice import Answer, Question


class Winners:
    """An ``Answer``: the winner where one is known, else the best guess.

    ``context`` is all that times depend on beside the question: machine, threads, generators.
    ``full``: also ``Question.more`` take part.
    """

    def __init__(self, context: str, store: DiskCache, *, full: bool = False) -> None:
        self._context, self._store, self.full = context, store, full
        self._known: dict[Question, str | None] = {}

    def __call__(self, question: Question) -> str:
        """The way to take."""
        return self.find(question) or question.candidates[0]

    def but(self, answers: Mapping[Question, str]) -> Answer:
        """These answers, and the winners for other questions."""
        return lambda question: answers.get(question) or self(question)

    def ways(self, question: Question) -> tuple[str, ...]:
        """All that take part, the best guess first."""
        return question.candidates + (question.more if self.full else ())

    def find(self, question: Question) -> str | None:
        """The winner among ``ways``, if it was ever found out."""
        if question not in self._known:
            stored = (self._store.get(self._key(question)) or b"").decode(errors="replace")
            self._known[question] = stored if stored in self.ways(question) else None
        return self._known[question]

    def keep(self, question: Question, winner: str) -> None:
        """Remember a winner, here and on disk."""
        self._known[question] = winner
        self._store.put(self._key(question), winner.encode())

    def _key(self, question: Question) -> str:
        text = "\n".join(("winner", self._context, question.text, *self.ways(question)))
        return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()
