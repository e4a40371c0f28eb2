"""The photos to classify and what is on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL import Image

# ImageNet's numbers of what scikit-image's photos show: Egyptian cat, espresso, moped.
SHIPPED = (("chelsea", 285), ("coffee", 967), ("motorcycle_left", 665))
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


@dataclass(frozen=True)
class Photo:
    """A file and its ImageNet class, None where unknown."""

    path: Path
    label: int | None

    def load(self) -> Image.Image:
        """The picture, in RGB."""
        return Image.open(self.path).convert("RGB")


def find(images_path: Path | None, labels_path: Path | None) -> list[Photo]:
    """The photos of a folder, by name, or those that come with scikit-image."""
    if images_path is None:
        from skimage.data import data_dir

        return [Photo(Path(data_dir) / f"{name}.png", label) for name, label in SHIPPED]
    labels = read_labels(labels_path) if labels_path else {}
    files = sorted(path for path in images_path.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise SystemExit(f"no photos in {images_path} ({', '.join(sorted(SUFFIXES))})")
    return [Photo(path, labels.get(path.name)) for path in files]


def read_labels(path: Path) -> dict[str, int]:
    """File name -> class, of lines ``ILSVRC2012_val_00000001.JPEG 65``."""
    pairs = (line.split() for line in path.read_text().splitlines() if line.strip())
    return {name: int(label) for name, label in pairs}


def batches(photos: list[Photo], size: int) -> Iterator[list[Photo]]:
    """The photos, ``size`` at a time; the last batch may hold fewer."""
    remaining = iter(photos)
    while batch := list(islice(remaining, size)):
        yield batch
