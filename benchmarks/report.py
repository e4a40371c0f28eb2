"""What a race found: a table for each model, a summary in Markdown, a picture.

``results`` are the JSON file's: by engine {"min", "median", ...} or {"missing": why}; ``models``
are the results by model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from benchmarks.engines import ENGINES

Results = Mapping[str, Mapping[str, Any]]
DOORS = ("aio-compile", "aio-freeze")


def table(model: str, results: Results) -> str:
    """The results of one model, a line an engine, speed relative to eager."""
    base = results.get("eager", {}).get("min")
    head = f"{'min ms':>9} {'median':>9} {'x eager':>8} {'first s':>8} {'start s':>8} {'error':>8}"
    lines = [f"{model:<19} {head}"]
    for name, found in results.items():
        if "missing" in found:
            lines.append(f"  {name:<17} {'-':>9}   {found['missing']}")
            continue
        speed = f"{base / found['min']:.2f}" if base else "-"
        lines.append(
            f"  {name:<17} {1e3 * found['min']:9.3f} {1e3 * found['median']:9.3f} {speed:>8}"
            f" {found['first']:8.2f} {found['start']:8.2f} {found['error']:8.1e}"
        )
    return "\n".join(lines)


def best_peer(results: Results) -> float | None:
    """The least time of the engines that are not ours."""
    times = (results.get(e.name, {}).get("min") for e in ENGINES if not e.is_ours)
    return min((time for time in times if time), default=None)


def ratio(results: Results, door: str) -> float | None:
    """The best peer's time by ours: above 1 we are faster than every one of them."""
    peer, ours = best_peer(results), results.get(door, {}).get("min")
    return peer / ours if peer and ours else None


def summary(models: Mapping[str, Results]) -> str:
    """Markdown: minima in milliseconds (the best in bold), ratios of our doors, their means."""
    engines = [e for e in ENGINES if any(e.name in results for results in models.values())]
    doors = [door for door in DOORS if any(e.name == door for e in engines)]
    head = ["model", *(e.title for e in engines), *(f"best peer / {door}" for door in doors)]
    lines = [head, ["---"] * len(head)]
    for model, results in models.items():
        times = [results.get(e.name, {}).get("min") for e in engines]
        best = min((time for time in times if time), default=None)
        cells = [_milliseconds(time, is_best=time == best) for time in times]
        lines.append([model, *cells, *(_ratio(ratio(results, door)) for door in doors)])
    means = [_mean(ratio(results, door) for results in models.values()) for door in doors]
    lines.append(["geometric mean", *[""] * len(engines), *map(_ratio, means)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _milliseconds(seconds: float | None, *, is_best: bool) -> str:
    if seconds is None:
        return "-"
    text = f"{1e3 * seconds:.{1 if seconds >= 0.01 else 2}f}"
    return f"**{text}**" if is_best else text


def _mean(ratios: Any) -> float | None:
    known = [value for value in ratios if value]
    return geometric_mean(known) if known else None


def _ratio(value: float | None) -> str:
    return f"{value:.2f}" if value else "-"


def draw(models: Mapping[str, Results], path: Path) -> None:
    """A bar for each engine and model: speed relative to the best peer of the model."""
    from matplotlib import pyplot as plt

    engines = [e for e in ENGINES if any(e.name in results for results in models.values())]
    figure, axes = plt.subplots(figsize=(max(6, 1 + 1.1 * len(models)), 4.5), layout="constrained")
    width = 0.8 / len(engines)
    for n, engine in enumerate(engines):
        speeds = [ratio(results, engine.name) or 0.0 for results in models.values()]
        places = [place + (n + 0.5) * width - 0.4 for place in range(len(models))]
        color = plt.cm.Greys(0.2 + 0.1 * n)
        if engine.is_ours:
            color = plt.cm.Reds(0.95 - 0.25 * (len(engines) - 1 - n))
        axes.bar(places, speeds, width, label=engine.title, color=color)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(models)), models, rotation=30, ha="right")
    axes.set_ylabel("speed, best peer = 1")
    figure.legend(ncols=4, fontsize="small", loc="outside upper center", frameon=False)
    axes.margins(x=0.01)
    figure.savefig(path, dpi=150)
