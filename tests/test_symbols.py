"""Integer expressions: canonical form, evaluation, guards."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch_aio.ir.symbols import (
    Guards,
    Int,
    ceil_div,
    evaluate,
    maximum,
    minimum,
    source,
    symbol,
    symbols_of,
)

S, T = symbol("s"), symbol("t")
LEAVES = st.one_of(st.integers(-9, 9), st.just(S), st.just(T))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.tuples(st.sampled_from("+-*/%><"), inner, inner),
    max_leaves=8,
)


def build(tree: object, env: dict[str, int] | None) -> Int:
    """The tree as an expression, or as a number where ``env`` is given."""
    if not isinstance(tree, tuple):
        return evaluate(tree, env) if env else tree  # type: ignore[arg-type]
    op, a, b = tree[0], build(tree[1], env), build(tree[2], env)
    if op in "/%":
        b = b * b + 1
        return a // b if op == "/" else a % b
    if op in "><":
        return maximum(a, b) if op == ">" else minimum(a, b)
    return a + b if op == "+" else a - b if op == "-" else a * b


@given(TREES, st.integers(1, 40), st.integers(1, 40))
def test_expressions_evaluate_as_integers_do(tree: object, s: int, t: int) -> None:
    """An expression's value, and its source's, are what the same integer arithmetic gives."""
    env = {"s": s, "t": t}
    want = build(tree, env)
    expression = build(tree, None)
    assert evaluate(expression, env) == want
    assert eval(source(expression), {"max": max, "min": min}, dict(env)) == want


def test_equal_expressions_are_equal_by_structure() -> None:
    """One canonical form: no guards are needed to see that sums and products agree."""
    assert (S + 1) * (S - 1) == S * S - 1
    assert hash(S + T) == hash(T + S)
    assert (8 * S) // 8 == S
    assert (8 * S * T) // (4 * T) == 2 * S
    assert (8 * S) % 8 == 0
    assert S - S == 0
    assert symbols_of(S * T + 3) == {"s", "t"}


def test_guards_record_what_the_hints_decide() -> None:
    """A question structure cannot answer is answered by the hint and must hold again later."""
    guards = Guards({"s": 5, "t": 7})
    with guards.active():
        assert S != 1
        assert S < T
        assert not (S > 100)
    assert guards.holds({"s": 6, "t": 9})
    assert not guards.holds({"s": 1, "t": 9})
    assert not guards.holds({"s": 9, "t": 9})
    assert len(guards.facts) == 3


def test_order_without_guards_is_an_error() -> None:
    """Outside a trace nobody may ask how symbols compare."""
    with pytest.raises(TypeError, match="without guards"):
        bool(S < T)
    assert S < S + 1


def test_ceil_div() -> None:
    """Rounded up, for numbers and symbols."""
    assert ceil_div(9, 4) == 3
    assert evaluate(ceil_div(S, 4), {"s": 9}) == 3
