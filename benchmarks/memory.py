"""How much a process grows from building a model to steady state, an engine a process.

``python -m benchmarks.memory resnet50``: megabytes of proportional set size (PSS) after the last
call over those before the model was built, when a small one has run and all is imported; and the
most that was resident meanwhile. The model itself is let go of after compiling: what stays is what
the engine keeps. ``onnxruntime-file`` loads what another process exported.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks import engines, models

FILE = "onnxruntime-file"
RELEASED = {"AIO_RELEASE_WEIGHTS": "1"}
ROWS: dict[str, tuple[str, dict[str, str]]] = {
    "eager": ("eager", {}),
    "onnxruntime": ("onnxruntime", {}),
    FILE: ("onnxruntime", {}),
    "openvino": ("openvino", {}),
    "aio-compile": ("aio-compile", {}),
    "aio-compile-released": ("aio-compile", RELEASED),
    "aio-freeze": ("aio-freeze", {}),
    "aio-freeze-released": ("aio-freeze", RELEASED),
}
"""What is compared: an engine, and settings beside its own."""
CALLS = 10


def kilobytes(file: str, field: str) -> int:
    """A line of one of this process's files in /proc."""
    lines = Path(f"/proc/self/{file}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def measure(options: argparse.Namespace) -> dict[str, float]:
    """In a fresh process: megabytes of growth at the end, and at the peak."""
    engine = engines.find(ROWS[options.stage][0])
    torch.set_num_threads(options.threads)
    for package in ("torchvision", "transformers"):
        if find_spec(package):
            import_module(package)
    with torch.inference_mode():
        small = models.build("mlp")
        engine.compile(small, options.threads)(*small.inputs)
        begin = kilobytes("smaps_rollup", "Pss:")
        run, inputs = prepared(options, engine)
        for _ in range(CALLS):
            run(*inputs)
    gc.collect()
    ends = kilobytes("smaps_rollup", "Pss:"), kilobytes("status", "VmHWM:")
    return dict(zip(("end", "peak"), ((end - begin) / 1024 for end in ends), strict=True))


def prepared(options: argparse.Namespace, engine: engines.Engine) -> tuple[engines.Run, Any]:
    """The compiled model and its inputs."""
    if options.stage == FILE:
        folder = options.folder
        return engines.onnx_session(folder / "model.onnx", options.threads), torch.load(
            folder / "inputs.pt"
        )
    model = models.build(options.model)
    return engine.compile(model, options.threads), model.inputs


def save(options: argparse.Namespace) -> dict[str, float]:
    """Leave the exported model and its inputs in the folder."""
    model = models.build(options.model)
    with torch.inference_mode():
        engines.export_onnx(model, options.folder / "model.onnx")
    torch.save(model.inputs, options.folder / "inputs.pt")
    return {}


def child(options: argparse.Namespace, stage: str, folder: str) -> dict[str, float]:
    """``measure`` a row, or ``save``, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", options.model, "--stage", stage]
    command += ["--threads", str(options.threads), "--folder", folder]
    name, settings = ROWS.get(stage, ROWS["eager"])
    environment = {**os.environ, **engines.find(name).environment, **settings}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{stage}: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print a line a row."""
    parser = argparse.ArgumentParser(description="Growth of the process, an engine a process.")
    add = parser.add_argument
    add("model", help="see benchmarks/models.py")
    add("--rows", default=",".join(ROWS), help="comma-separated (all)")
    add("--threads", type=int, default=2)
    add("--stage", choices=(*ROWS, "save"), help=argparse.SUPPRESS)
    add("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        print(json.dumps(save(options) if options.stage == "save" else measure(options)))
        return
    print(f"{options.model:<22} {'MB at the end':>14} {'at the peak':>12}")
    with tempfile.TemporaryDirectory() as folder:
        rows = options.rows.split(",")
        if FILE in rows:
            child(options, "save", folder)
        for row in rows:
            found = child(options, row, folder)
            print(f"{row:<22} {found['end']:14.0f} {found['peak']:12.0f}", flush=True)


if __name__ == "__main__":
    main()
