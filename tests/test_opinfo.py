"""PyTorch's own samples of every operator of the support table agree with eager."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from opinfo import Tally, check, distinct, samples

FLOAT = (torch.float32,)
ALL = (torch.float32, torch.int64, torch.bool)
FUNCTIONAL = """conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear
    max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d relu relu6 leaky_relu gelu silu hardswish hardsigmoid
    batch_norm layer_norm group_norm instance_norm rms_norm embedding embedding_bag pixel_shuffle
    upsample_nearest upsample_bilinear interpolate pad scaled_dot_product_attention""".split()
FLOATING = "mm bmm baddbmm addmm matmul einsum sigmoid tanh softmax log_softmax exp log sqrt rsqrt "
FLOATING += "erf reciprocal mean"
TYPED = """add sub mul div maximum minimum max min where neg pow abs clamp eq ne lt
    le gt ge logical_and logical_or logical_xor logical_not masked_fill sum prod any all amax amin
    argmax argmin cumsum topk
    sort transpose permute view reshape squeeze unsqueeze flatten contiguous split chunk
    split_with_sizes select narrow expand zeros_like full_like cat stack tril triu gather
    take_along_dim __getitem__ index_select index_add index_copy index_put scatter scatter_add
    scatter_reduce""".split()
OPERATORS = {
    **{f"nn.functional.{name}": FLOAT for name in FUNCTIONAL},
    **dict.fromkeys(FLOATING.split(), FLOAT),
    **dict.fromkeys(TYPED, ALL),
}
"""OpInfo's names of the operators of the support table, and the dtypes of their samples."""

QUICK = 5
"""Samples of an operator in the quick suite; the slow one takes all that differ in kind."""

tallies: dict[str, Tally] = {}


@pytest.fixture(autouse=True)
def _strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIO_STRICT", "1")


@pytest.fixture(scope="module", autouse=True)
def _share(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print, at the end, the share of samples on our kernels and why the others are not."""
    yield
    with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
        print(report())


def report() -> str:
    """One line an operator that is not wholly ours, and the totals."""
    lines = [
        f"  {name}: {tally.ours} of {tally.ran}; {'; '.join(sorted(tally.reasons))}"
        for name, tally in sorted(tallies.items())
        if tally.ours < tally.ran
    ]
    ours, ran = (sum(getattr(t, key) for t in tallies.values()) for key in ("ours", "ran"))
    return "\n".join(["", *lines, f"{ours} of {ran} OpInfo samples run wholly on our kernels"])


@pytest.mark.parametrize("name", OPERATORS)
def test_samples(name: str) -> None:
    """Samples of each kind agree with eager."""
    tally = tallies.setdefault(name, Tally())
    for sample in distinct(samples(name, OPERATORS[name]), QUICK):
        check(sample, tally)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATORS)
def test_all_samples(name: str) -> None:
    """All samples that differ in more than sizes agree with eager."""
    tally = tallies.setdefault(name, Tally())
    for sample in distinct(samples(name, OPERATORS[name]), 10_000):
        check(sample, tally)


def test_share() -> None:
    """At least four of five samples run wholly on our kernels (447 of 511 with PyTorch 2.14)."""
    if len(tallies) < len(OPERATORS):
        pytest.skip("the tests above did not run")
    ours, ran = (sum(getattr(t, key) for t in tallies.values()) for key in ("ours", "ran"))
    assert ours >= 0.8 * ran, report()
