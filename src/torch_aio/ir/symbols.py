"""Integer expressions in a graph's symbols: the sizes, strides and offsets of dynamic shapes.

A size is a Python ``int`` or an ``Expr``: a polynomial whose atoms are symbols and opaque calls
(floor division, remainder, max, min). Expressions are kept in one canonical form, so equal sizes
compare equal by structure. A question that structure cannot answer (``s0 == 1``?) is decided by the
hints of the active ``Guards`` and recorded there: a plan made under those answers is valid for
exactly the symbol values that give the same answers again.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Union

Int = Union[int, "Expr"]
Monomial = tuple["Atom", ...]


@dataclass(frozen=True)
class Atom:
    """A symbol (``op == "symbol"``, ``args == (name,)``) or an opaque call over sizes."""

    op: str
    args: tuple[Int | str, ...]

    def source(self) -> str:
        """The atom as Python source."""
        if self.op == "symbol":
            return str(self.args[0])
        a, b = (source(x) if not isinstance(x, str) else x for x in self.args)
        return {"floordiv": f"({a} // {b})", "mod": f"({a} % {b})"}.get(
            self.op, f"{self.op}({a}, {b})"
        )


class Expr:
    """A sum of monomials with integer coefficients; immutable and hashable."""

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        self.terms = terms
        self._hash = hash(terms)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return source(self)

    def __add__(self, other: Int) -> Int:
        return _collect(_terms(self) + _terms(other))

    __radd__ = __add__

    def __neg__(self) -> Int:
        return self * -1

    def __sub__(self, other: Int) -> Int:
        return self + other * -1

    def __rsub__(self, other: Int) -> Int:
        return self * -1 + other

    def __mul__(self, other: Int) -> Int:
        return _collect(
            tuple(
                (tuple(sorted(m + n, key=repr)), c * d)
                for m, c in _terms(self)
                for n, d in _terms(other)
            )
        )

    __rmul__ = __mul__

    def __floordiv__(self, other: Int) -> Int:
        exact = _divide(self, other)
        return exact if exact is not None else _call("floordiv", self, other)

    def __rfloordiv__(self, other: Int) -> Int:
        return 0 if other == 0 else _call("floordiv", other, self)

    def __mod__(self, other: Int) -> Int:
        return 0 if _divide(self, other) is not None else _call("mod", self, other)

    def __rmod__(self, other: Int) -> Int:
        return _call("mod", other, self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (int, Expr)):
            return NotImplemented
        if isinstance(other, Expr) and self.terms == other.terms:
            return True
        return isinstance(self - other, Expr) and decide("==", self, other)

    def __lt__(self, other: Int) -> bool:
        return decide("<", self, other)

    def __le__(self, other: Int) -> bool:
        return not decide("<", other, self)

    def __gt__(self, other: Int) -> bool:
        return decide("<", other, self)

    def __ge__(self, other: Int) -> bool:
        return not decide("<", self, other)

    def __bool__(self) -> bool:
        return self != 0


def symbol(name: str) -> Expr:
    """The expression that is just the symbol ``name`` (a Python identifier)."""
    return Expr((((Atom("symbol", (name,)),), 1),))


def maximum(a: Int, b: Int) -> Int:
    """The larger of two sizes, without asking which it is."""
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else _call("max", a, b)


def minimum(a: Int, b: Int) -> Int:
    """The smaller of two sizes, without asking which it is."""
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else _call("min", a, b)


def ceil_div(a: Int, b: Int) -> Int:
    """``a / b`` rounded up, for positive ``b``."""
    return (a + b - 1) // b


def product(sizes: tuple[Int, ...] | list[Int]) -> Int:
    """The product of sizes (1 for none)."""
    result: Int = 1
    for size in sizes:
        result = result * size
    return result


def source(value: Int) -> str:
    """Python source that computes ``value`` from variables named like its symbols."""
    if isinstance(value, int):
        return repr(value)
    parts = []
    for monomial, coefficient in value.terms:
        factors = [atom.source() for atom in monomial]
        if coefficient != 1 or not factors:
            factors.insert(0, str(coefficient))
        parts.append(" * ".join(factors))
    return parts[0] if len(parts) == 1 else "(" + " + ".join(parts) + ")"


def symbols_of(value: Int) -> frozenset[str]:
    """The names of the symbols that ``value`` depends on."""
    if isinstance(value, int):
        return frozenset()
    names: set[str] = set()
    for monomial, _ in value.terms:
        for atom in monomial:
            for arg in atom.args:
                names |= {arg} if isinstance(arg, str) else symbols_of(arg)
    return frozenset(names)


def bucket_of(env: Mapping[str, int]) -> dict[str, int]:
    """The power of two above each symbol's value: sizes that share memory plans and winners."""
    return {name: 1 << max(value - 1, 0).bit_length() for name, value in env.items()}


def evaluate(value: Int, env: Mapping[str, int]) -> int:
    """The number that ``value`` is where each symbol has the value in ``env``."""
    if isinstance(value, int):
        return value
    total = 0
    for monomial, coefficient in value.terms:
        total += coefficient * math.prod(_evaluate_atom(atom, env) for atom in monomial)
    return total


@dataclass
class Guards:
    """The answers that a symbolic trace relied on, decided by ``hints`` (symbol -> example)."""

    hints: dict[str, int]
    facts: dict[tuple[str, Int, Int], bool] = field(default_factory=dict)

    @contextmanager
    def active(self) -> Iterator[Guards]:
        """Make this the recorder of every question asked inside."""
        token = _active.set(self)
        try:
            yield self
        finally:
            _active.reset(token)

    def decide(self, op: str, a: Int, b: Int) -> bool:
        """Answer ``a op b`` by the hints and remember the answer."""
        answer = bool(_COMPARE[op](evaluate(a, self.hints), evaluate(b, self.hints)))
        token = _active.set(None)
        try:
            self.facts[(op, a, b)] = answer
        finally:
            _active.reset(token)
        return answer

    def holds(self, env: Mapping[str, int]) -> bool:
        """Whether every recorded answer is the same for the symbol values in ``env``."""
        return all(
            _COMPARE[op](evaluate(a, env), evaluate(b, env)) == answer
            for (op, a, b), answer in self.facts.items()
        )


_COMPARE: dict[str, Callable[[int, int], bool]] = {"==": operator.eq, "<": operator.lt}
_active: ContextVar[Guards | None] = ContextVar("guards", default=None)


def decide(op: str, a: Int, b: Int) -> bool:
    """Answer ``a op b`` (``==`` or ``<``); asks the active guards where structure cannot tell.

    Without active guards ``==`` answers by structure and ``<`` raises TypeError.
    """
    difference = a - b
    if isinstance(difference, int):
        return _COMPARE[op](difference, 0)
    guards = _active.get()
    if guards is not None:
        return guards.decide(op, a, b)
    if op == "==":
        return False
    raise TypeError(f"cannot decide {source(a)} {op} {source(b)} without guards")


def _terms(value: Int) -> tuple[tuple[Monomial, int], ...]:
    if isinstance(value, Expr):
        return value.terms
    return (((), value),) if value else ()


def _collect(terms: tuple[tuple[Monomial, int], ...]) -> Int:
    sums: dict[Monomial, int] = {}
    for monomial, coefficient in terms:
        sums[monomial] = sums.get(monomial, 0) + coefficient
    kept = tuple(sorted(((m, c) for m, c in sums.items() if c), key=repr))
    if not kept:
        return 0
    if len(kept) == 1 and kept[0][0] == ():
        return kept[0][1]
    return Expr(kept)


def _call(op: str, a: Int, b: Int) -> Int:
    return Expr((((Atom(op, (a, b)),), 1),))


def _divide(value: Expr, divisor: Int) -> Int | None:
    """``value / divisor`` where every term divides exactly, else None."""
    terms = _terms(divisor)
    if len(terms) != 1:
        return 1 if isinstance(divisor, Expr) and value.terms == divisor.terms else None
    (factors, scale), result = terms[0], []
    for monomial, coefficient in value.terms:
        rest = list(monomial)
        for factor in factors:
            if factor not in rest:
                return None
            rest.remove(factor)
        if coefficient % scale:
            return None
        result.append((tuple(rest), coefficient // scale))
    return _collect(tuple(result))


def _evaluate_atom(atom: Atom, env: Mapping[str, int]) -> int:
    if atom.op == "symbol":
        return env[str(atom.args[0])]
    a, b = (evaluate(x, env) for x in atom.args if not isinstance(x, str))
    return _ARITHMETIC[atom.op](a, b)


_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "max": max,
    "min": min,
}
