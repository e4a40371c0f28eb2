"""Times engines in turn on the same models, each in its own process.

``python -m benchmarks.race resnet50 bert-base --engines eager,torchscript,aio-compile,aio-freeze``

Rounds are interleaved: in every round each engine has a turn of some calls, after a pause in which
the pools of the others fall asleep, so a slow minute of the machine hits all of them. Reported are
the minimum and the median over all calls; the time to the first result, with compilation but
without imports, by whatever caches of compiled code hold (``--cold``: nothing); the first two calls
minus two steady ones; and the error max |y - ref64| / max |ref64|.

The JSON file keeps the figures of other models, so a long race can be run in parts; without a model
its table is printed (and drawn) as it stands.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import report
from benchmarks.engines import find
from benchmarks.models import ALL

DEFAULT = "eager,torchscript,inductor-freezing,onnxruntime,openvino,zentorch,aio-compile,aio-freeze"
CACHES = {"AIO_CACHE_DIR": "aio", "TORCHINDUCTOR_CACHE_DIR": "inductor"}
MOST_CALLS = 100  # of a turn


class Racer:
    """A worker process, its results so far, or the reason why it is out of the race."""

    def __init__(self, job: dict[str, Any], environment: dict[str, str], log: Path) -> None:
        self.name = job["engine"]
        self.log = log
        self.missing = ""
        self.facts: dict[str, Any] = {}
        self.rounds: list[list[float]] = []
        threads = str(job["threads"])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": threads, **environment},
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its answer; a dead worker is out of the race."""
        if self.missing:
            return {}
        pipe_in, pipe_out = self.process.stdin, self.process.stdout
        assert pipe_in is not None
        assert pipe_out is not None
        with suppress(BrokenPipeError):  # readline tells
            pipe_in.write(json.dumps(request) + "\n")
            pipe_in.flush()
        line = pipe_out.readline()
        if not line:
            self.missing = f"the process ended: {self.last_words()}"
            return {}
        answer: dict[str, Any] = json.loads(line)
        self.missing = answer.get("missing", "")
        return answer

    def last_words(self) -> str:
        """The last line of the worker's stderr."""
        status = self.process.wait()
        lines = self.log.read_text().strip().splitlines()
        return lines[-1][:200] if lines else f"status {status}"

    def turn(self, seconds: float) -> None:
        """Time as many calls as fit the turn, by the fastest so far."""
        fastest = min((min(times) for times in self.rounds), default=0.0)
        count = max(1, min(MOST_CALLS, int(seconds / fastest))) if fastest else 1
        answer = self.ask(do="run", count=count)
        if not self.missing:
            self.rounds.append(answer["times"])

    def close(self) -> None:
        """End the process."""
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait()

    def result(self) -> dict[str, Any]:
        """What the JSON file holds of this engine."""
        if self.missing or not self.rounds:
            return {"missing": self.missing or "not timed"}
        times = [seconds for turn in self.rounds for seconds in turn]
        middle = median(times)
        start = {"start": max(0.0, self.facts["two_calls"] - 2 * middle)}
        return {"min": min(times), "median": middle, **self.facts, **start, "rounds": self.rounds}


def race(model: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Results of all engines on one model, by engine name."""
    job = {name: getattr(options, name) for name in ("threads", "batch", "size", "tokens")}
    job |= {"model": model, "reference": str(folder / "reference.pt")}
    off = {"AIO_PROCESS_MODE": "0"}
    judge = Racer({**job, "engine": "reference"}, off, folder / "reference.log")
    judge.ask(do="reference")
    judge.close()
    if judge.missing:
        raise SystemExit(f"{model}: {judge.missing}")
    caches = {name: str(folder / path) for name, path in CACHES.items()} if options.cold else {}
    racers = []
    for name in options.engines.split(","):
        environment = {**caches, **find(name).environment}
        racer = Racer({**job, "engine": name}, environment, folder / f"{name}.log")
        racers.append(racer)
        racer.facts = racer.ask(do="prepare")  # one at a time: first calls are timed
    for _ in range(options.rounds):
        for racer in racers:
            time.sleep(options.pause)
            racer.turn(options.turn)
    for racer in racers:
        racer.close()
    return {racer.name: racer.result() for racer in racers}


def machine(threads: int) -> dict[str, Any]:
    """What the figures depend on."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0].partition(": ")[2] if names else platform.processor(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load": os.getloadavg(),
        "python": platform.python_version(),
    }


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Time engines in turn on the same models.")
    add = parser.add_argument
    add("models", nargs="*", help="see benchmarks/models.py; all: its list")
    add("--engines", default=DEFAULT, help=f"comma-separated ({DEFAULT})")
    add("--threads", type=int, default=2, help="threads of every engine (2)")
    add("--rounds", type=int, default=8, help="interleaved rounds (8)")
    add("--turn", type=float, default=0.5, help="seconds of an engine's turn, about (0.5)")
    add("--pause", type=float, default=0.3, help="seconds of rest before a turn (0.3)")
    add("--batch", type=int, default=1)
    add("--size", type=int, default=224, help="a picture's side")
    add("--tokens", type=int, default=128, help="a text's length")
    add("--cold", action="store_true", help="begin with empty caches of compiled code")
    add("--json", type=Path, default=Path("build/race.json"), help="all figures (build/race.json)")
    add("--picture", type=Path, help="draw the summary there (.png, .svg; needs matplotlib)")
    return parser.parse_args()


def earlier(path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The figures of other models in the file, if they are of this machine and thread count."""
    found = json.loads(path.read_text()) if path.exists() else {}
    same = all(found.get("machine", {}).get(name) == facts[name] for name in ("cpu", "threads"))
    return found["models"] if same else {}


def main() -> None:
    """Race, print and keep."""
    options = parse()
    facts = machine(options.threads)
    print(f"{facts['cpu']}, {options.threads} threads, load {facts['load'][0]:.1f}")
    found: dict[str, Any] = {"machine": facts, "models": earlier(options.json, facts)}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    suffix = f" batch {options.batch}" if options.batch > 1 else ""
    for model in ALL if options.models == ["all"] else options.models:
        with tempfile.TemporaryDirectory() as folder:
            results = race(model, options, Path(folder))
        found["models"][model + suffix] = results
        print(report.table(model + suffix, results), flush=True)
        options.json.write_text(json.dumps(found, indent=1))
    print(report.summary(found["models"]))
    if options.picture:
        report.draw(found["models"], options.picture)
    print(f"all figures: {options.json}")


if __name__ == "__main__":
    main()
