"""Time to the first result in fresh processes, with a cold and with a warm kernel cache.

``python -m benchmarks.startup resnet50 --doors freeze,compile`` starts processes of its own: for
each door the first has an empty AIO_CACHE_DIR, the others find what it left. Timed are ``import
torch``, capture (trace and freeze, torch.jit.load of a frozen file, or torch.compile), the first
two calls, a steady one, and ``start``: the first two minus two steady ones. The door "compile"
comes after "aot", torch.compile(backend="aot_eager"): ``ours`` is what is left of ``start`` without
Dynamo and AOT.

torchvision itself imports torch._dynamo: the door "load", which needs torch alone, shows a start
without it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

ENGINES = {"freeze": "aio-freeze", "compile": "aio-compile", "eager": "eager"}
DOORS = (*ENGINES, "load", "aot")
COLUMNS = ("import", "capture", "first", "second", "steady", "start")
PLAIN = ("eager", "aot")
STEADY = 10  # calls, the fastest of which is steady


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """In a fresh process: seconds of each stage, and what was imported by it."""
    begin = perf_counter()
    import torch

    imported = perf_counter()
    torch.set_num_threads(options.threads)
    capture, inputs = entrance(options, folder)
    dynamo = "torch._dynamo" in sys.modules  # imported by the model's own package
    with torch.inference_mode():
        built = perf_counter()
        run = capture()
        captured = perf_counter()
        run(*inputs)
        first = perf_counter()
        run(*inputs)
        second = perf_counter()
        steady = min(timeit.repeat(lambda: run(*inputs), repeat=STEADY, number=1))
    stages = (imported - begin, captured - built, first - captured, second - first, steady)
    start = second - captured - 2 * steady
    return {
        **dict(zip(COLUMNS, (*stages, start), strict=True)),
        "dynamo": "torch._dynamo" in sys.modules and not dynamo,
        "dynamo_before": dynamo,
        "llvmlite": "llvmlite" in sys.modules,
    }


def entrance(options: argparse.Namespace, folder: Path) -> tuple[Callable[[], Any], Any]:
    """What to call for the compiled model, and the model's inputs."""
    import torch

    if options.door == "load":
        return lambda: torch.jit.load(folder / "model.pt"), torch.load(folder / "inputs.pt")
    from benchmarks import engines, models

    model = models.build(options.model, size=options.size)
    if options.door == "aot":
        return lambda: torch.compile(model.module, backend="aot_eager"), model.inputs
    engine = engines.find(ENGINES[options.door])
    return lambda: engine.compile(model, options.threads), model.inputs


def save(options: argparse.Namespace, folder: Path) -> None:
    """Leave the frozen model and its inputs for the door "load"."""
    import torch

    from benchmarks import engines, models

    model = models.build(options.model, size=options.size)
    torch.jit.save(engines.frozen(model, options.threads), folder / "model.pt")
    torch.save(model.inputs, folder / "inputs.pt")


def child(options: argparse.Namespace, door: str, stage: str, folder: str) -> dict[str, Any]:
    """Run ``measure`` or ``save`` in a process of its own, with a cache in this folder."""
    command = [sys.executable, "-m", "benchmarks.startup", options.model, "--stage", stage]
    for name in ("threads", "size"):
        command += [f"--{name}", str(getattr(options, name))]
    command += ["--door", door]
    settings = {"AIO_CACHE_DIR": f"{folder}/cache", "AIO_DEBUG_MODE": "1"}
    settings["AIO_PROCESS_MODE"] = "0" if door in PLAIN or stage == "save" else "1"
    settings |= {"OMP_NUM_THREADS": str(options.threads), "PYTHONWARNINGS": "ignore"}
    environment = {**os.environ, **settings}
    run = subprocess.run(
        [*command, "--folder", folder], env=environment, stdout=subprocess.PIPE, check=True
    )
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def main() -> None:
    """One cold start, then warm ones."""
    parser = argparse.ArgumentParser(description="Time to the first result in fresh processes.")
    add = parser.add_argument
    add("model", help="see benchmarks/models.py")
    add("--doors", default="freeze,compile", help=f"comma-separated, of {', '.join(DOORS)}")
    add("--threads", type=int, default=2)
    add("--size", type=int, default=224, help="a picture's side")
    add("--runs", type=int, default=3, help="warm starts (3)")
    add("--stage", choices=("measure", "save"), help=argparse.SUPPRESS)
    add("--door", choices=DOORS, help=argparse.SUPPRESS)
    add("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage == "measure":
        print(json.dumps(measure(options, options.folder)))
    elif options.stage == "save":
        save(options, options.folder)
        print("{}")
    else:
        report(options)


def report(options: argparse.Namespace) -> None:
    """Start the processes and print their figures."""
    print(f"{'seconds':<16}" + "".join(f"{name:>9}" for name in COLUMNS))
    for door in options.doors.split(","):
        base = starts(options, "aot") if door == "compile" else None
        found = starts(options, door)
        if base:
            ours = (f"{a['start'] - b['start']:9.3f}" for a, b in zip(found, base, strict=True))
            print(f"{'ours':<16}{''.join(ours)}   (cold, then warm)")


def starts(options: argparse.Namespace, door: str) -> list[dict[str, Any]]:
    """The figures of one cold start and of warm ones through a door, printed as well."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        if door == "load":
            child(options, door, "save", folder)
        for n in range(1 + options.runs):
            found.append(child(options, door, "measure", folder))
            figures = "".join(f"{found[n][name]:9.3f}" for name in COLUMNS)
            print(f"{door:<8}{'warm' if n else 'cold':<8}{figures}", flush=True)
    if found[0]["dynamo"] and door in {"freeze", "load"}:
        print("torch._dynamo was imported by the door")
    if found[0]["dynamo_before"]:
        print("(the model's own package had imported torch._dynamo already)")
    if not found[0]["llvmlite"] and door not in PLAIN:
        print("llvmlite was not imported: nothing ran on the engine's kernels")
    return found


if __name__ == "__main__":
    main()
