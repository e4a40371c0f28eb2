"""The names that Ampere's programs use on torch._C."""

from __future__ import annotations

import os
import subprocess
import sys

import torch

from torch_aio import switch
from torch_aio.capture import surface


def test_programs_find_the_names(capsys):
    surface.install()
    assert "_aio_profiler_print" in dir(torch._C)
    torch._C._aio_profiler_print()
    assert capsys.readouterr().out


def test_the_switch():
    surface.install()
    torch._C._aio_force_disable()
    assert not switch.on
    torch._C._aio_force_enable()
    assert switch.on


def test_import_torch_is_enough_and_loads_nothing_heavy():
    """Also with the engine off, where the names stay."""
    code = (
        "import sys, torch\n"
        "torch._C._aio_profiler_print(), torch._C._aio_force_disable()\n"
        "print('llvmlite' in sys.modules, 'torch._dynamo' in sys.modules)"
    )
    for mode in ("0", "1"):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "AIO_PROCESS_MODE": mode},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert run.stdout.endswith("False False\n")


def test_the_doors_modules_do_not_import_dynamo():
    code = (
        "import sys, torch_aio.capture.compat, torch_aio.capture.dynamo, torch_aio.capture.export\n"
        "print('torch._dynamo' in sys.modules, 'llvmlite' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert run.stdout.split()[0] == "False"
