"""Choices of a lowering: what a family asks, what it gets, and what is kept of it."""

from __future__ import annotations

import torch

from torch_aio.codegen.isa import AVX2, ISAS
from torch_aio.kernels.conv import TILES, tiles_for
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


def test_tiles_of_a_convolution_begin_with_the_best_guess():
    """One vector of output channels: a tile of one first; 64: the largest tile."""
    for isa in ISAS:
        for vectors in range(1, 65):
            tiles = tiles_for(isa, 49, vectors)
            assert tiles
            assert set(tiles) <= set(TILES[isa.name])
    assert tiles_for(AVX2, 49, 1)[0][1] == 1
    assert tiles_for(AVX2, 49, 64)[0] == (6, 2)
