"""Classifies photos with a torchvision model, with torch-aio on and off."""

from __future__ import annotations

import torch
from torch import Tensor

from . import engine, photos, weights
from .options import Options, apply, parse

TOP = 5
SHOWN = 12  # photos whose classes are printed


def main(name: str, title: str) -> int:
    """Run the example; 0 if engine on and off agree on every photo's class."""
    options = parse(f"Classify photos with {title}.")
    apply(options)
    model, entry = weights.load(name)
    files = photos.find(options.images_path, options.labels_path)
    with torch.inference_mode():
        run = engine.accelerate(model, name, compiled=options.compile)
        found = classify(run, files, entry.transforms(), options.batch_size)
        seconds = time(run, files, entry.transforms(), options)
    on, off = found.get(True, found[False]), found[False]
    show(files, on, entry.meta["categories"])
    engine.report(seconds, options.batch_size)
    return agreement(files, on, off)


def classify(
    model: engine.Model, files: list[photos.Photo], transform: torch.nn.Module, size: int
) -> dict[bool, Tensor]:
    """Probabilities [photo, class] with the engine on (if installed) and off."""
    states = (True, False) if engine.installed() else (False,)
    rows: dict[bool, list[Tensor]] = {on: [] for on in states}
    for batch in photos.batches(files, size):
        tensor = pixels(batch, transform, size)
        for on in states:
            engine.switch(on=on)
            rows[on].append(model(tensor)[: len(batch)].softmax(1))
    engine.switch(on=True)
    return {on: torch.cat(parts) for on, parts in rows.items()}


def pixels(batch: list[photos.Photo], transform: torch.nn.Module, size: int) -> Tensor:
    """The batch as the network takes it, filled up to ``size`` by repetition."""
    rows = [transform(photo.load()) for photo in batch]
    return torch.stack([rows[i % len(rows)] for i in range(size)])


def time(
    model: engine.Model, files: list[photos.Photo], transform: torch.nn.Module, options: Options
) -> dict[bool, float]:
    """Seconds a pass over the first photos, engine on and off."""
    size = options.batch_size
    batch = pixels(files[:size], transform, size)
    return engine.race(model, batch, runs=options.num_runs, timeout=options.timeout)


def show(files: list[photos.Photo], probabilities: Tensor, names: list[str]) -> None:
    """Print the best classes of the first photos and the accuracy over the labelled ones."""
    best = probabilities.topk(TOP)
    rows = list(zip(files, best.values.tolist(), best.indices.tolist(), strict=True))
    for photo, values, indices in rows[:SHOWN]:
        print(photo.path.name)
        for value, index in zip(values, indices, strict=True):
            print(f"  {100 * value:5.1f} %  {names[index]}")
    known = [(photo.label, indices) for photo, _, indices in rows if photo.label is not None]
    if known:
        first = sum(label == indices[0] for label, indices in known) / len(known)
        any_of_5 = sum(label in indices for label, indices in known) / len(known)
        print(f"\n Top-1 accuracy = {first:.3f}\n Top-5 accuracy = {any_of_5:.3f}")


def agreement(files: list[photos.Photo], on: Tensor, off: Tensor) -> int:
    """Say whether both ways name the same classes; 1 where they do not."""
    if on is off:
        print("\nThe engine is not installed: PyTorch's classes only.")
        return 0
    differing = (on.argmax(1) != off.argmax(1)).nonzero().flatten().tolist()
    for i in differing[:SHOWN]:
        print(f"\n{files[i].path.name}: class {int(on[i].argmax())}, off {int(off[i].argmax())}")
    worst = float((on - off).abs().max())
    same = "differ" if differing else "are the same"
    print(f"\nClasses with the engine on and off {same} (probabilities within {worst:.1e}).")
    return 1 if differing else 0
