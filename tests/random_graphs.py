"""Random programs of supported operators: the generator behind test_random_graphs.

A program is text: one operator application a line over named values, so a failure prints as a
module that can be pasted. Every line is run while it is drawn, in fp32, in fp64, and in fp64 with
every operand shaken by one rounding. A line that eager refuses, whose values grow large, or whose
result moves by more than a few roundings (cancellation) is dropped: the programs kept are well
conditioned, so that the bound of accuracy.py means what it says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from accuracy import error
from random_program import FLOAT, LAYOUTS, Input, Program, Shape, default_dtype

SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33)
"""Sizes around lanes (8, 16) and tiles; zero is drawn apart, once in forty."""
MOST_ELEMENTS = 30_000
MOST_MAGNITUDE = 1e4
EPS = torch.finfo(FLOAT).eps
MOST_NOISE = 2 * EPS


@dataclass(frozen=True)
class Value:
    """A value of the program under construction, as three evaluations see it.

    ``exact``: without rounding so far, hence the same in every precision: what comparisons,
    rounding and conversions to integers may be applied to.
    """

    name: str
    plain: Tensor
    wide: Tensor
    shaken: Tensor
    exact: bool

    @property
    def shape(self) -> Shape:
        return tuple(self.plain.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.plain.dtype

    @property
    def is_float(self) -> bool:
        return self.plain.is_floating_point()


@dataclass(frozen=True)
class Operator:
    """One row of the table: ``line(draw)`` is the expression, None where nothing fits.

    ``exact``: the result holds operands' numbers, or is decided by them: it does not round.
    """

    name: str
    family: str
    line: Callable[[Draw], str | None]
    exact: bool = False


class Table:
    """The operators by family; drawn family first, so that each has its part."""

    def __init__(self, operators: Sequence[Operator]) -> None:
        self.families: dict[str, list[Operator]] = {}
        for operator in operators:
            self.families.setdefault(operator.family, []).append(operator)


@dataclass
class Draw:
    """A program under construction, and what operators ask of it."""

    choose: Callable[[st.SearchStrategy[Any]], Any]
    inputs: list[Input] = field(default_factory=list)
    parameters: list[Input] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    pool: list[Value] = field(default_factory=list)
    used: list[Value] = field(default_factory=list)

    def of(self, options: Sequence[Any]) -> Any:
        """One of several; the first is the simplest."""
        return self.choose(st.sampled_from(list(options)))

    def integer(self, low: int, high: int) -> int:
        """A number from ``low`` to ``high``, both included."""
        return int(self.choose(st.integers(low, high)))

    def flag(self) -> bool:
        return bool(self.choose(st.booleans()))

    def rare(self, odds: int = 8) -> bool:
        """True once in ``odds``."""
        return self.integer(0, odds - 1) == odds - 1

    def size(self) -> int:
        return 0 if self.rare(40) else self.of(SIZES)

    def shape(self, ndim: int) -> Shape:
        """Sizes around lane edges, small where there are many."""
        return tuple(self.size() if i > ndim - 3 else self.integer(1, 3) for i in range(ndim))

    # ---- values -----------------------------------------------------------------------------

    def input(self, shape: Shape, dtype: torch.dtype = FLOAT, **kwargs: Any) -> Value:
        """A new input of the program."""
        layout, seed = self.of(list(LAYOUTS)), self.integer(0, 99)
        given = Input(shape, dtype, layout, self.rare(6), seed, **kwargs)
        self.inputs.append(given)
        x = given.make()
        wide = x.double() if dtype == FLOAT else x
        return self._add(Value(f"x{len(self.inputs) - 1}", x, wide, wide, exact=True))

    def value(
        self,
        fits: Callable[[Value], bool] = lambda _: True,
        dtypes: Sequence[torch.dtype] = (FLOAT,),
        ndim: Sequence[int] = (2, 3, 4, 1, 0),
        shape: Callable[[], Shape] | None = None,
    ) -> Value:
        """A value of the pool that fits, or else (or at times) a new input."""
        known = [v for v in self.pool if v.dtype in dtypes and len(v.shape) in ndim and fits(v)]
        if known and not self.rare(4):
            return self.use(self.of(known[::-1]))
        wanted = shape() if shape else self.shape(self.of(ndim))
        return self.use(self.input(wanted, self.of(dtypes)))

    def beside(
        self, a: Value, dtypes: Sequence[torch.dtype] = (FLOAT,), *, exact: bool = False
    ) -> Value:
        """A value that broadcasts with ``a``."""

        def fits(v: Value) -> bool:
            pairs = zip(v.shape[::-1], a.shape[::-1], strict=False)
            return (v.exact or not exact) and all(m == n or 1 in (m, n) for m, n in pairs)

        def shape() -> Shape:
            kept = a.shape[self.integer(0, len(a.shape)) if self.rare(3) else 0 :]
            return tuple(1 if self.rare(4) else n for n in kept)

        return self.value(fits, dtypes, range(5), shape)

    def parameter(self, shape: Shape) -> str:
        """A new weight of the module."""
        self.parameters.append(Input(shape, FLOAT, seed=self.integer(0, 99)))
        return f"self.p{len(self.parameters) - 1}"

    def use(self, value: Value) -> Value:
        self.used.append(value)
        return value

    def _add(self, value: Value) -> Value:
        self.pool.append(value)
        return value

    # ---- lines ------------------------------------------------------------------------------

    def apply(self, operator: Operator) -> None:
        """Draw a line of ``operator`` and keep it if it is sound."""
        self.used.clear()
        text = operator.line(self)
        if text is None:
            return
        name = f"v{len(self.lines)}"
        exact = operator.exact and all(v.exact for v in self.used)
        value = self._evaluate(name, text, exact, shake=not operator.exact)
        if value is not None:
            self.lines.append(f"{name} = {text}")
            self._add(value)

    def _evaluate(self, name: str, text: str, exact: bool, shake: bool) -> Value | None:
        try:
            plain = self._run(text, FLOAT, lambda v: v.plain)
            wide = self._run(text, torch.float64, lambda v: v.wide)
            shaken = self._run(
                text, torch.float64, lambda v: _shake(v.shaken) if shake else v.shaken
            )
        except (RuntimeError, IndexError, ValueError):
            return None  # eager refuses it
        return Value(name, plain, wide, shaken, exact) if _is_sound(plain, wide, shaken) else None

    def _run(self, text: str, dtype: torch.dtype, see: Callable[[Value], Tensor]) -> Tensor:
        weights = {f"p{i}": p.make().to(dtype) for i, p in enumerate(self.parameters)}
        owner = type("Owner", (), weights)
        scope = {"torch": torch, "F": F, "f32": dtype, "self": owner}
        with default_dtype(dtype), torch.no_grad():
            return eval(text, scope, {v.name: see(v) for v in self.used})

    def program(self, most_outputs: int = 3) -> Program:
        """The program so far; values that nothing reads are returned."""
        results = [v.name for v in self.pool if v.name.startswith("v")]
        text = " ".join(line.partition("=")[2] + " " for line in self.lines)
        words = set("".join(c if c.isalnum() else " " for c in text).split())
        loose = [name for name in results if name not in words]
        more = [n for n in results if n not in loose and self.rare()][:most_outputs]
        return Program(
            tuple(self.inputs), tuple(self.parameters), tuple(self.lines), (*loose, *more)
        )


def _shake(x: Tensor) -> Tensor:
    """Every element off by up to one rounding of fp32."""
    if not x.is_floating_point():
        return x
    generator = torch.Generator().manual_seed(x.numel())
    return x * (1 + EPS * (2 * torch.rand(x.shape, generator=generator, dtype=x.dtype) - 1))


def _is_sound(plain: Tensor, wide: Tensor, shaken: Tensor) -> bool:
    if plain.numel() > MOST_ELEMENTS or plain.shape != wide.shape:
        return False
    finite = wide[torch.isfinite(wide)]
    if finite.numel() and finite.double().abs().max() > MOST_MAGNITUDE:
        return False
    if not plain.is_floating_point():
        return torch.equal(plain, wide) and torch.equal(plain, shaken)
    for other in (plain, shaken):
        same = torch.isnan(wide) == torch.isnan(other)
        same &= torch.isinf(wide) == torch.isinf(other)
        if not same.all():
            return False
    return error(shaken, wide) <= MOST_NOISE and error(plain, wide) <= 4 * MOST_NOISE


@st.composite
def programs(draw: Any, table: Table, most_lines: int = 12) -> Program:
    """A strategy of programs made of the table's operators."""
    state = Draw(draw)
    for _ in range(state.integer(1, most_lines)):
        state.apply(state.of(table.families[state.of(list(table.families))]))
    if not state.lines:
        state.apply(Operator("relu", "", lambda d: f"torch.relu({d.value().name})", exact=True))
    return state.program()
