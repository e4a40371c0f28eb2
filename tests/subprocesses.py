"""Programs of the user's in processes of their own, killed with their stacks shown if they hang."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

_WATCHDOG = """
import faulthandler, warnings
faulthandler.dump_traceback_later({limit}, exit=True)
warnings.simplefilter("ignore")
"""


def run(program: str, limit: int = 60, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program; fails if it fails or takes more than ``limit`` seconds."""
    text = _WATCHDOG.format(limit=limit) + textwrap.dedent(program)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", text],
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=limit + 30,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return done
