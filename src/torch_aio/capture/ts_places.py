"""Where a TorchScript node comes from: the user's line and the module's path."""

from __future__ import annotations

import itertools
import linecache
import re
from typing import Any

SCRIPTED = re.compile(r'File "([^"]+)", line (\d+)')
TRACED = re.compile(r"^(\S+)\((\d+)\): ", re.MULTILINE)


def source_of(node: Any) -> str:
    """``"model.py:12: x = self.fc(x)"`` for the innermost line outside PyTorch, "" if unknown."""
    text = node.sourceRange()
    frames = SCRIPTED.findall(text) or TRACED.findall(text)
    if not frames:
        return ""
    theirs = [f for f in frames if "/torch/" not in f[0]]
    file, line = (theirs or frames)[0]
    code = linecache.getline(file, int(line)).strip() or _marked(text)
    return f"{file.rpartition('/')[2]}:{line}: {code}"


def _marked(text: str) -> str:
    """The line above the mark that points at the code (sources of a saved model are gone)."""
    lines = text.splitlines()
    for above, line in itertools.pairwise(lines):
        if "<--- HERE" in line:
            return above.strip()
    return ""


def path_of(node: Any) -> str:
    """The module's path from the scope of a traced node, else from the name of its weight."""
    scope = str(node.scopeName()).rpartition("/")[2]
    if scope:
        return scope.removeprefix("__module.").removeprefix("__module")
    for value in node.inputs():
        if value.node().kind() == "prim::Constant":
            name = str(value.debugName())
            if name.startswith("self."):
                return name.removeprefix("self.").rpartition(".")[0]
    return ""
