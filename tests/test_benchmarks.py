"""The benchmarks run on the smallest model, and their tables say what was measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import images, models, report, startup, static

from torch_aio.codegen.jit import Jit
from torch_aio.kernels.conv import Conv
from torch_aio.kernels.conv_tiles import TILES
from torch_aio.kernels.gemm import Gemm
from torch_aio.kernels.spec import generate

ROOT = Path(__file__).parent.parent


def benchmark(name, *arguments):
    """What ``python -m benchmarks.NAME`` prints."""
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=240,
        check=True,
    ).stdout


def test_race_times_engines_in_turn_and_says_why_one_is_missing(tmp_path):
    file = tmp_path / "race.json"
    options = ("--rounds", 2, "--turn", 0.01, "--pause", 0, "--json", file)
    printed = benchmark("race", "mlp", "--engines", "eager,aio-freeze", *options)
    found = json.loads(file.read_text())["models"]["mlp"]
    for engine in ("eager", "aio-freeze"):
        assert 0 < found[engine]["min"] <= found[engine]["median"]
        assert found[engine]["error"] < 1e-6
        assert len(found[engine]["rounds"]) == 2
    assert "| geometric mean |" in printed
    assert report.summary({"mlp": found}) in benchmark("race", "--json", file)


def test_summary_compares_with_the_best_peer():
    """The best of a row is bold; ours are no peers; the missing are left out."""
    results = {
        "eager": {"min": 0.030},
        "openvino": {"missing": "ModuleNotFoundError: openvino"},
        "onnxruntime": {"min": 0.012},
        "aio-compile": {"min": 0.008},
        "aio-freeze": {"min": 0.006},
    }
    row, mean = report.summary({"net": results}).splitlines()[2:]
    assert row == "| net | 30.0 | 12.0 | - | 8.00 | **6.00** | 1.50 | 2.00 |"
    assert mean.endswith("| 1.50 | 2.00 |")


def test_roofline_accounts_for_every_step():
    """Two products of 64 x 64 have 16,384 operations and 32 KiB of weights; the total adds up."""
    lines = benchmark("roofline", "mlp", "--calls", 2).splitlines()
    assert lines[0].startswith("mlp: ")
    rows = [line.split(maxsplit=5) for line in lines[2:]]
    total = rows.pop()
    assert total[-1] == "total"
    assert float(total[1]) == pytest.approx(sum(float(row[1]) for row in rows), abs=0.1 * len(rows))
    rate, seconds = float(total[3]) * 1e9, float(total[1]) / 1e6
    assert rate * seconds == pytest.approx(2 * 2 * 64 * 64, rel=0.2)


def test_startup_counts_the_first_two_calls_beyond_steady_ones():
    lines = benchmark("startup", "mlp", "--doors", "freeze", "--runs", 1).splitlines()
    assert lines[0].split() == ["seconds", *startup.COLUMNS]
    for word, line in zip(("cold", "warm"), lines[1:3], strict=True):
        door, kind, *figures = line.split()
        assert (door, kind) == ("freeze", word)
        *_, first, second, steady, start = map(float, figures)
        assert start == pytest.approx(first + second - 2 * steady, abs=0.003)


def test_overhead_and_memory_run_on_the_smallest_model():
    printed = benchmark("overhead", "--rounds", 1)
    assert printed.startswith("native ")
    assert "100 parameters: aio " in printed
    rows = benchmark("memory", "mlp", "--rows", "eager,aio-freeze").splitlines()
    assert [row.split()[0] for row in rows[1:]] == ["eager", "aio-freeze"]


GEMM_LOOP = """
kernel:
.LBB0_1:
\tmov\tx1, x2
.LBB0_2:
\tldr\tq1, [sp, #16]
\tb.eq\t.LBB0_3
\tfmla\tv0.4s, v1.4s, v2.4s
.LBB0_3:
\tb.lt\t.LBB0_2
\tb\t.LBB0_1
"""


def test_static_finds_the_innermost_loop():
    """From its label to the branch back to it, past a branch ahead; the outer loop is left out."""
    (loop,) = static.innermost(GEMM_LOOP)
    assert [line.split()[0] for line in loop] == ["ldr", "b.eq", "fmla", "b.lt"]
    assert (static.multiply_adds(loop), static.stack_accesses(loop)) == (1, 1)


@pytest.mark.parametrize("target", static.TARGETS, ids=lambda target: target.processor)
def test_static_finds_the_products_of_every_hot_kernel(target):
    jit = Jit(target.isa, lambda _: None, lambda *_: None)
    for spec in (Gemm(target.isa.tile[0]), Conv(next(iter(TILES[target.isa.name])))):
        rows, vectors = spec.tile
        loop = static.hottest(jit.assembly(generate(spec, target.isa)))
        assert static.multiply_adds(loop) % (rows * vectors) == 0
        assert len(loop) < 2 * static.multiply_adds(loop)


def test_the_list_of_models_is_known():
    torchvision = pytest.importorskip("torchvision.models")
    others = {"bert-base", "gpt2", "whisper-base", *images.MODELS}
    assert set(models.ALL) - others <= set(torchvision.list_models())


def test_text_and_speech_models_take_positional_tensors():
    pytest.importorskip("transformers")
    model = models.build("gpt2", tokens=4)
    assert models.flat(model.module(*model.inputs))[0].shape == (1, 4, 50257)
