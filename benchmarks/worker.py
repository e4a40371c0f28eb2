"""One engine with one model in a process of its own; the race tells it when to run.

Reads a JSON object a line, answers with one. ``{"do": "prepare"}`` compiles and calls the model
once; ``{"do": "run", "count": 20}`` times calls. The engine ``reference`` writes the fp64 outputs.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import warnings
from pathlib import Path
from time import perf_counter
from typing import Any, TextIO

import torch

from benchmarks import engines, models

WARM_UP = 3  # profiling, tuning and packing happen in the first calls
SETTLE = 2  # untimed calls of each turn: caches and sleeping pools


class Worker:
    """The state between requests: the model and, once prepared, its compiled form."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.model = models.build(job["model"], job["batch"], job["size"], job["tokens"])
        self.run: engines.Run = self.model.module

    def write_reference(self) -> dict[str, Any]:
        """Leave the fp64 outputs in the job's file."""
        torch.save(models.reference(self.model), self.job["reference"])
        return {}

    def prepare(self) -> dict[str, Any]:
        """Compile and settle: seconds to the first result and of the first two calls, error."""
        engine = engines.find(self.job["engine"])
        begin = perf_counter()
        self.run = engine.compile(self.model, self.job["threads"])
        compiled = perf_counter()
        outputs = models.flat(self.run(*self.model.inputs))
        first = perf_counter()
        later = models.flat(self.run(*self.model.inputs))
        second = perf_counter()
        exact = torch.load(self.job["reference"])
        for _ in range(WARM_UP):
            later = models.flat(self.run(*self.model.inputs))
        return {
            "first": first - begin,
            "two_calls": second - compiled,
            "error": max(models.error(outputs, exact), models.error(later, exact)),
            "version": importlib.metadata.version(engine.package),
        }

    def time(self, count: int) -> dict[str, Any]:
        """Seconds of each of ``count`` calls."""
        inputs, run, times = self.model.inputs, self.run, []
        for _ in range(SETTLE):
            run(*inputs)
        for _ in range(count):
            begin = perf_counter()
            run(*inputs)
            times.append(perf_counter() - begin)
        return {"times": times}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked; a failure is an answer too."""
        try:
            with torch.inference_mode():
                if request["do"] == "reference":
                    return self.write_reference()
                if request["do"] == "prepare":
                    return self.prepare()
                return self.time(request["count"])
        except Exception as failure:
            lines = [line for line in str(failure).splitlines() if line.strip()]
            return {"missing": f"{type(failure).__name__}: {lines[0] if lines else ''}"[:200]}


def private_output() -> TextIO:
    """The pipe to the race; whatever else the process prints goes to stderr."""
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return pipe


def main() -> None:
    """Serve requests until the race closes the pipe."""
    warnings.simplefilter("ignore")
    pipe = private_output()
    job = json.loads(sys.argv[1])
    torch.set_num_threads(job["threads"])
    Path(job["reference"]).parent.mkdir(parents=True, exist_ok=True)
    worker = Worker(job)
    for line in sys.stdin:
        print(json.dumps(worker.answer(json.loads(line))), file=pipe, flush=True)


if __name__ == "__main__":
    main()
