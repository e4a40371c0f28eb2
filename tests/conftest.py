"""What all tests share: a cache folder a session, markers, hypothesis profiles, seeds."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator

import hypothesis
import pytest
import torch

from torch_aio import cpu, log
from torch_aio.codegen import isa

_CACHE = pytest.StashKey[str]()

hypothesis.settings.register_profile(
    "default",
    max_examples=100,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "long",
    parent=hypothesis.settings.get_profile("default"),
    max_examples=1000,
    derandomize=False,
    print_blob=True,
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well")


def pytest_configure(config: pytest.Config) -> None:
    """One cache of compiled kernels for the session, inherited by the processes tests start."""
    # Else a failing test shows thousands of torch's structured traces, all without text.
    logging.getLogger("torch.__trace").disabled = True
    # The bound of twice eager's error is that of direct convolution.
    os.environ.setdefault("AIO_WINOGRAD", "0")
    # What is chosen by timing differs from run to run.
    os.environ.setdefault("AIO_TUNE", "off")
    # Processes of tests run at once: bound, they would all sit on one core.
    os.environ.setdefault("AIO_CPU_BIND", "0")
    if "AIO_CACHE_DIR" not in os.environ:
        config.stash[_CACHE] = tempfile.mkdtemp(prefix="torch_aio-tests-")
        os.environ["AIO_CACHE_DIR"] = config.stash[_CACHE]


def pytest_unconfigure(config: pytest.Config) -> None:
    folder = config.stash.get(_CACHE, None)
    if folder is not None:
        del os.environ["AIO_CACHE_DIR"]
        shutil.rmtree(folder, ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    slow = pytest.mark.skip(reason="slow (--slow runs it)")
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(slow)
        for marker in item.iter_markers("isa"):
            name = marker.args[0]
            assert name in {known.name for known in isa.ISAS}, f"no instruction set {name!r}"
            if isa.detect(cpu.features(), name) is None:
                item.add_marker(pytest.mark.skip(reason=f"this machine has no {name}"))


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Random tensors are the same at every run and in every order of tests."""
    torch.manual_seed(0)


@pytest.fixture
def notices(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The log of the test, with every once-only notice due again."""
    log.forget_notices()
    with caplog.at_level(log.ALL, logger="torch_aio"):
        yield caplog
    log.forget_notices()
