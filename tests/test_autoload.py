"""What `import torch` brings: names and hooks, and next to no time."""

from __future__ import annotations

import compileall
import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import torch_aio
from torch_aio import _autoload

HEAVY = ("llvmlite", "torch._dynamo", "torch_aio.codegen.jit", "torch_aio.plan", "sympy.polys")


def python(program, **variables):
    """What a fresh process prints, on stdout and stderr."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def test_import_torch_hooks_us_in_and_imports_nothing_heavy():
    program = f"""
import sys
before = set(sys.modules)
import torch
print(*[name for name in {HEAVY!r} if name in sys.modules])
print(hasattr(torch._C, "_aio_profiler_print"), hasattr(torch.jit.freeze, "__wrapped__"))
"""
    done = python(program)
    heavy, hooked = done.stdout.splitlines()
    assert heavy == ""
    assert hooked == "True True"
    assert done.stderr == ""


def test_import_torch_spends_less_than_10_ms_with_us(tmp_path):
    """CPU time around the package's own import, with byte code as an installed package has it."""
    package = tmp_path / "torch_aio"
    shutil.copytree(Path(torch_aio.__file__).parent, package)
    assert compileall.compile_dir(package, quiet=1)
    program = """
import time, torch
start = time.process_time()
import torch_aio._autoload
print((time.process_time() - start) * 1e3)
"""
    variables = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "PYTHONPATH": str(tmp_path)}
    spent = [float(python(program, **variables).stdout) for _ in range(3)]
    assert min(spent) < 10, spent


@pytest.mark.parametrize(
    "first", ["torch_aio", "torch_aio.config", "torch_aio.ir.spec", "torch_aio.capture.dynamo"]
)
def test_our_modules_can_be_imported_before_torch(first):
    program = f"import {first}, torch, torch_aio; torch_aio.compile; "
    program += "print(hasattr(torch.jit.freeze, '__wrapped__'))"
    done = python(program)
    assert done.stdout == "True\n"
    assert done.stderr == ""


def test_with_autoload_off_the_import_of_the_package_hooks_us_in():
    program = "import torch; print('_aio_profiler_print' in dir(torch._C)); import torch_aio; "
    program += "print('_aio_profiler_print' in dir(torch._C))"
    done = python(program, TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    assert done.stdout.split() == ["False", "True"]


def test_process_mode_0_leaves_the_names_and_hooks_nothing():
    program = """
import sys, torch
torch._C._aio_profiler_print, torch._C._aio_force_enable(), torch._C._aio_force_disable()
print(hasattr(torch.jit.freeze, "__wrapped__"))
compiled = torch.compile(lambda x: x + 1, backend="aio")
print(compiled(torch.ones(2)).tolist(), "llvmlite" in sys.modules)
"""
    done = python(program, AIO_PROCESS_MODE="0")
    assert done.stdout.splitlines() == ["False", "[2.0, 2.0] False"]


def test_the_thread_count_is_pytorchs():
    assert python("import torch; print(torch.get_num_threads())", AIO_NUM_THREADS="1").stdout == (
        "1\n"
    )


def test_a_wrong_setting_is_said_at_import_and_raised_at_the_first_compile():
    program = """
import torch
try:
    torch.compile(lambda x: x + 1, backend="aio")(torch.ones(2))
except Exception as error:
    print(error)
"""
    done = python(program, AIO_NUM_THREADS="many")
    text = "AIO_NUM_THREADS='many': must be a positive integer"
    assert done.stderr.count(text) == 1
    assert text in done.stdout


def test_a_hook_that_fails_is_a_message_and_not_an_exception(monkeypatch, notices):
    monkeypatch.setattr(_autoload, "_done", False)
    monkeypatch.setattr(_autoload, "HOOKS", ("torch_aio.no_such_module",))
    _autoload.autoload()
    assert "the engine is not hooked into PyTorch: ModuleNotFoundError" in notices.text


def test_the_second_call_does_nothing(monkeypatch):
    monkeypatch.setattr(_autoload, "NAMES", "torch_aio.no_such_module")
    _autoload.autoload()


def test_public_names_are_complete_and_there():
    assert torch_aio.__all__ == sorted(torch_aio.__all__)
    assert {*torch_aio._HOMES, "__version__"} == {*torch_aio.__all__}
    for name in torch_aio.__all__:
        assert getattr(torch_aio, name) is not None
        assert name in dir(torch_aio)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = torch_aio.no_such_name


def test_the_distribution_declares_its_entry_points():
    distribution = importlib.metadata.distribution("torch-aio")
    assert distribution.version == torch_aio.__version__
    found = {(point.group, point.name): point.value for point in distribution.entry_points}
    assert found["torch.backends", "aio"] == "torch_aio._autoload:autoload"
    assert found["torch_dynamo_backends", "aio"] == "torch_aio.capture.dynamo:backend"
    assert found["console_scripts", "aio"] == "torch_aio.cli:main"


def test_dynamo_lists_the_backend():
    assert "aio" in torch.compiler.list_backends()


def test_aio_info_prints_versions_platform_settings_and_cache(capsys):
    from torch_aio import cli, config

    assert cli.main(["info"]) == 0
    page = capsys.readouterr().out
    for word in ("Versions", "Platform", "Settings", "Cache", torch.__version__):
        assert word in page
    for option in config.OPTIONS:
        assert option.name in page


def test_aio_says_a_wrong_setting_in_one_line(capsys, monkeypatch):
    from torch_aio import cli

    monkeypatch.setenv("AIO_TUNE", "maybe")
    assert cli.main(["info"]) == 2
    assert capsys.readouterr().err == "aio: AIO_TUNE='maybe': must be off, fast or full\n"
