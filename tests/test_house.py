"""How the code is built: what may import what, how long things are, who does what alone."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "src" / "torch_aio"
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

# Lowest first: a module imports from its own layer or a lower one.
LAYERS = ("ir", "ops", "codegen", "runtime", "kernels", "plan", "graph", "engine", "capture")
# The modules below all layers, each importing only those before it ...
FOUNDATION = ("version", "errors", "log", "switch", "parse", "config", "num_threads", "cpu")
FOUNDATION += ("banner", "cache", "compiling")
# ... and those above them.
TOP = ("tools", "_autoload", "cli", "__init__")

MAX_LINES = 300
MAX_FUNCTION = 40

# path -> why it is longer than 300 lines
LONG_FILES: dict[str, str] = {
    "codegen/builder.py": "the only file that spells LLVM IR",
}
# path:function -> why it has 40 lines or more
LONG_FUNCTIONS: dict[str, str] = {}

IR_TEXT = re.compile(
    r"\bgetelementptr\b|\bshufflevector\b|\binsertelement\b|\bextractelement\b|\bbr label\b"
    r"|\bdefine \w+ @|\bdeclare .*@|= (load|call|phi|icmp|f?add|f?mul) |<\d+ x (float|half|i\d+)>"
)


@cache
def tree(path):
    return ast.parse((PACKAGE / path).read_text(), path)


def rank(module):
    """Where a module (`torch_aio.plan.rows`) stands: (0, place) for the foundation, 1... above."""
    parts = module.split(".")[1:] or ["__init__"]
    if parts[0] in LAYERS:
        return 1 + LAYERS.index(parts[0]), 0
    if parts[0] in TOP:
        return 1 + len(LAYERS), 0
    assert parts[0] in FOUNDATION, f"{module} has no place in the order of imports"
    return 0, FOUNDATION.index(parts[0])


def module_of(path):
    parts = ["torch_aio", *Path(path).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path):
    """The modules of ours that a file imports, anywhere in it, with the line."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            base = node.module
            found = [name for alias in node.names if (name := submodule(base, alias.name))]
        else:
            continue
        yield from ((name, node.lineno) for name in found if name.split(".")[0] == "torch_aio")


def submodule(base, name):
    """`from base import name`: the module this reads, which is `base.name` if that is one."""
    inside = PACKAGE.joinpath(*base.split(".")[1:], name)
    is_module = base.split(".")[0] == "torch_aio" and (
        inside.with_suffix(".py").exists() or inside.is_dir()
    )
    return f"{base}.{name}" if is_module else base


def test_imports_point_down():
    """The top > capture > engine > graph > plan > kernels > runtime > codegen > ops > ir > ..."""
    wrong = []
    for path in FILES:
        here = rank(module_of(path))
        for module, line in imported(path):
            there = rank(module)
            lower = there < here if here[0] == 0 else there[0] <= here[0]
            if not lower:
                wrong.append(f"{path}:{line} imports {module}, which stands above it")
    assert not wrong, listed(wrong)


def listed(wrong):
    return "\n" + "\n".join(wrong)


def test_imports_form_no_cycle():
    """Counted between modules, also within one layer."""
    edges = {
        module_of(path): {module for module, _ in imported(path)} - {"torch_aio"}
        for path in FILES
        if path != "__init__.py"
    }
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            path.append(module)
            for other in sorted(edges.get(module, ())):
                visit(other)
            path.pop()
            done.add(module)

    for module in sorted(edges):
        visit(module)


def test_files_are_short():
    lines = {path: len((PACKAGE / path).read_text().splitlines()) for path in FILES}
    wrong = [f"{path}: {n} lines" for path, n in lines.items() if n > MAX_LINES]
    assert not [text for text in wrong if text.split(":")[0] not in LONG_FILES], listed(wrong)
    for path in LONG_FILES:
        assert lines[path] > MAX_LINES, f"{path} is short enough now: delete its row"


def functions(path):
    """Qualified name, first line and number of code lines (docstring aside) of each function."""

    def visit(node, prefix):
        for child in ast.iter_child_nodes(node):
            name = prefix
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                name = f"{prefix}.{child.name}" if prefix else child.name
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield name, child.lineno, length(child)
            yield from visit(child, name)

    return visit(tree(path), "")


def length(function):
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        lines -= function.body[0].end_lineno - function.body[0].lineno + 1
    return lines


def test_functions_are_short():
    lengths = {f"{path}:{name}": (line, n) for path in FILES for name, line, n in functions(path)}
    wrong = [
        f"{name} (line {line}): {n} lines of code"
        for name, (line, n) in lengths.items()
        if n >= MAX_FUNCTION and name not in LONG_FUNCTIONS
    ]
    assert not wrong, listed(wrong)
    for name in LONG_FUNCTIONS:
        assert lengths[name][1] >= MAX_FUNCTION, f"{name} is short enough now: delete its row"


def test_the_exceptions_exist_and_have_reasons():
    names = {f"{path}:{name}" for path in FILES for name, _, _ in functions(path)}
    assert set(LONG_FILES) <= set(FILES)
    assert set(LONG_FUNCTIONS) <= names
    assert all(len(reason.split()) >= 3 for reason in (LONG_FILES | LONG_FUNCTIONS).values())


def strings(path):
    """The string constants of a file that are no docstrings, with their lines."""
    module = tree(path)
    docstrings = {
        node.body[0].value
        for node in ast.walk(module)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and ast.get_docstring(node) is not None
    }
    for node in ast.walk(module):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and node not in docstrings:
            yield node.value, node.lineno


def test_only_the_builder_spells_llvm_ir():
    wrong = [
        f"{path}:{line}: {text!r}"
        for path in FILES
        if path != "codegen/builder.py"
        for text, line in strings(path)
        if IR_TEXT.search(text)
    ]
    assert not wrong, listed(wrong)


def test_only_config_reads_the_environment():
    wrong = [
        f"{path}:{node.lineno}"
        for path in FILES
        if path != "config.py"
        for node in ast.walk(tree(path))
        if isinstance(node, (ast.Attribute, ast.Name)) and name_of(node) in ENVIRONMENT
    ]
    assert not wrong, listed(wrong)


ENVIRONMENT = {"environ", "environb", "getenv", "putenv"}


def name_of(node):
    return node.attr if isinstance(node, ast.Attribute) else node.id


def test_an_init_only_re_exports():
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.Expr)
    inits = [path for path in FILES if path.endswith("/__init__.py")]
    wrong = [
        f"{path}:{node.lineno} defines something"
        for path in inits
        for node in tree(path).body
        if not isinstance(node, allowed)
    ]
    assert not wrong, listed(wrong)


def test_modules_are_nouns():
    empty = {"util", "utils", "helper", "helpers", "manager", "misc", "common"}
    wrong = [path for path in FILES if empty & set(Path(path).stem.split("_"))]
    assert not wrong, listed(wrong)
