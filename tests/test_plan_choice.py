"""Choices of a lowering: what a family asks, what it gets, and what is kept of it."""

from __future__ import annotations

import torch

from torch_aio.codegen.isa import AVX2
from torch_aio.plan.lowering import Lowering


def lowering(answer=None) -> Lowering:
    return Lowering(
        AVX2, [], [], lambda _: torch.empty(0), **({"answer": answer} if answer else {})
    )


def test_the_first_candidate_is_the_default():
    ctx = lowering()
    ctx.label = "conv_1"
    assert ctx.choose("conv 3x3", ["a", "b"]) == "a"
    (choice,) = ctx.choices
    assert (choice.question.text, choice.chosen, choice.label) == ("conv 3x3", "a", "conv_1")


def test_an_answer_decides():
    ctx = lowering(lambda question: question.candidates[-1])
    assert ctx.choose("conv 3x3", ["a", "b"]) == "b"
    assert ctx.choices[0].chosen == "b"


def test_a_single_candidate_is_no_question():
    ctx = lowering(lambda question: "never")
    assert ctx.choose("conv 3x3", ["a"]) == "a"
