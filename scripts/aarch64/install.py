"""Makes the tree's package known to an interpreter without pip: its entry points and version.

``install.py TREE FOLDER`` writes ``FOLDER/torch_aio-<version>.dist-info`` from the tree's
pyproject.toml; with TREE/src and FOLDER on PYTHONPATH, ``import torch`` finds the engine as after
``pip install``.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import tomllib


def entry_points(project: dict[str, Any]) -> str:
    """The text of entry_points.txt."""
    groups = {**project.get("entry-points", {}), "console_scripts": project.get("scripts", {})}
    lines = []
    for group, names in groups.items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in names.items()), ""]
    return "\n".join(lines)


def main(tree: Path, folder: Path) -> None:
    """Write the metadata anew."""
    shutil.rmtree(folder, ignore_errors=True)
    pyproject = tree / "pyproject.toml"
    if not pyproject.exists():
        return
    project = tomllib.loads(pyproject.read_text())["project"]
    version = project.get("version", "0")
    metadata = folder / f"torch_aio-{version}.dist-info"
    metadata.mkdir(parents=True)
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {version}\n"
    (metadata / "METADATA").write_text(head)
    (metadata / "entry_points.txt").write_text(entry_points(project))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
