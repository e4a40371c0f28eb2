"""Workers of the first team are bound to cores, and nothing else is."""

from __future__ import annotations

import os

import pytest
import torch

import subprocesses
from torch_aio import config
from torch_aio.runtime.binding import place

TWO_CORES = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2 or torch.get_num_threads() < 2, reason="needs two cores"
)

PROGRAM = """
import os, subprocess, sys, threading, torch, torch_aio
allowed = os.sched_getaffinity(0)
before = set(os.listdir("/proc/self/task"))
model = torch.nn.Sequential(torch.nn.Linear(64, 512), torch.nn.ReLU()).eval()
x = torch.randn(512, 64)
with torch.no_grad():
    compiled = torch_aio.compile(model, (x,))
    compiled(x)
masks = {int(t): os.sched_getaffinity(int(t)) for t in os.listdir("/proc/self/task")}
one = [t for t, mask in masks.items() if len(mask) == 1]
started = []
thread = threading.Thread(target=lambda: started.append(os.sched_getaffinity(0)))
thread.start(); thread.join()
child = subprocess.run([sys.executable, "-c", "import os; print(len(os.sched_getaffinity(0)))"],
                       capture_output=True, text=True).stdout
assert os.sched_getaffinity(0) == allowed, "the caller is pinned"
assert started == [allowed], "a thread started later is pinned"
assert int(child) == len(allowed), "a process started later is pinned"
with torch.no_grad():
    torch.testing.assert_close(compiled(x), model(x))
print(len(one), sorted(next(iter(masks[t])) for t in one))
"""


def settings(monkeypatch, **variables):
    for name in ("AIO_CPU_BIND", "AIO_NUMA_CPUS", "OMP_PROC_BIND", "OMP_PLACES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("GOMP_CPU_AFFINITY", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return config.read()


@TWO_CORES
def test_the_workers_of_a_team_that_fills_the_mask_are_bound():
    allowed = sorted(os.sched_getaffinity(0))
    threads = min(torch.get_num_threads(), len(allowed))
    done = subprocesses.run(PROGRAM, AIO_CPU_BIND="1", AIO_NUM_THREADS=str(threads))
    assert done.stdout.split(" ", 1)[0] == str(threads - 1), done.stdout


@TWO_CORES
@pytest.mark.parametrize(
    "environment", [{"AIO_CPU_BIND": "0"}, {"OMP_PROC_BIND": "false", "OMP_PLACES": "threads"}]
)
def test_nobody_is_bound_against_the_users_word(environment):
    done = subprocesses.run(PROGRAM, **environment)
    assert done.stdout.startswith("0 []"), done.stdout


def test_the_first_cores_in_order(monkeypatch):
    plain = settings(monkeypatch)
    assert place(2, plain, (0, 1, 2, 3), (0, 2), None).cores == (0, 2)
    assert place(4, plain, (0, 1, 2, 3), (0, 2), None).cores == (0, 1, 2, 3)


def test_a_team_that_leaves_cores_to_others_is_not_bound_unasked(monkeypatch):
    plain = settings(monkeypatch)
    placement = place(2, plain, (0, 1, 2, 3), (0, 1, 2, 3), None)
    assert not placement.cores
    assert "do not fill" in placement.reason
    assert not placement.asked
    asked = settings(monkeypatch, AIO_CPU_BIND="1")
    assert place(2, asked, (0, 1, 2, 3), (0, 1, 2, 3), None).cores == (0, 1)


def test_a_control_group_that_grants_less_is_not_bound_unasked(monkeypatch):
    placement = place(2, settings(monkeypatch), (0, 1), (0, 1), 1.5)
    assert "grants 1.5 CPUs" in placement.reason


def test_a_busy_machine_is_not_bound_unasked(monkeypatch):
    """Others' threads would be waited for on one core while another is free."""
    placement = place(2, settings(monkeypatch), (0, 1), (0, 1), None, 5.7)
    assert "other processes run here" in placement.reason
    asked = settings(monkeypatch, AIO_CPU_BIND="1")
    assert place(2, asked, (0, 1), (0, 1), None, 5.7).cores == (0, 1)


def test_listed_cores(monkeypatch):
    listed = settings(monkeypatch, AIO_NUMA_CPUS="3 1 0")
    assert place(2, listed, (0, 1, 2, 3), (0, 1, 2, 3), None).cores == (3, 1)
    absent = place(2, listed, (0, 1), (0, 1), None)
    assert not absent.cores
    assert absent.asked
    assert "names CPU 3" in absent.reason
    few = place(4, listed, (0, 1, 2, 3), (0, 1, 2, 3), None)
    assert "fewer CPUs than the 4 threads" in few.reason


def test_never_over_openmp(monkeypatch):
    for name in ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY"):
        said = settings(monkeypatch, AIO_CPU_BIND="1", **{name: "true"})
        assert "places them" in place(2, said, (0, 1), (0, 1), None).reason


def test_more_threads_than_cpus_are_not_bound(monkeypatch):
    assert "3 threads for 2 CPUs" in place(3, settings(monkeypatch), (0, 1), (0, 1), None).reason
