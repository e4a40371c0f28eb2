"""The command line of the classification examples."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    precision: str
    batch_size: int
    timeout: float
    num_runs: int
    images_path: Path | None
    labels_path: Path | None
    compile: bool


def parse(description: str) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("-p", "--precision", choices=("fp32", "fp16"), required=True, help="fp16: on the fly")
    add("-b", "--batch_size", type=int, default=1, help="photos a forward pass (1)")
    add("--timeout", type=float, default=60.0, help="seconds of timing at most (60)")
    add("--num_runs", type=int, default=100, help="timed passes at most, each way (100)")
    add("--images_path", type=Path, help="a folder of photos (scikit-image's by default)")
    add("--labels_path", type=Path, help='a file of lines "photo.jpg class-number"')
    add("--compile", action="store_true", help="torch.compile instead of frozen TorchScript")
    given = parser.parse_args()
    if given.batch_size < 1 or given.num_runs < 1:
        parser.error("--batch_size and --num_runs must be 1 or more")
    return Options(**vars(given))


def apply(options: Options) -> None:
    """Set the threads and the precision, before the model is compiled."""
    if threads := os.environ.get("AIO_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    if options.precision == "fp16":
        os.environ.setdefault("AIO_IMPLICIT_FP16_TRANSFORM_FILTER", ".*")
    print(f"\nIntraop parallelism set to {torch.get_num_threads()} threads\n")
    print("Running with PyTorch\n")
