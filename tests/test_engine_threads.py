"""Several threads, a fork and a changed thread count: right answers, no hang."""

from __future__ import annotations

import subprocesses

THREADS = """
import threading, torch, torch_aio
from torch import nn
from torch_aio.runtime import network
network.ONE_THREAD = 0  # these small models shall run on the whole team

class One(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(256, 384), nn.Linear(384, 16)
        self.s = nn.Parameter(torch.ones(16))
    def forward(self, x):
        y = torch.fft.fft(torch.relu(self.a(x))).real  # a node for PyTorch between two networks
        return torch.tanh(self.b(y) * 0.1) * self.s

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 8, 3, padding=1)
        self.l = nn.Linear(8, 5)
    def forward(self, x):
        return torch.softmax(self.l(torch.relu(self.c(x)).mean((2, 3))), -1)

from torch_aio.runtime import network, threads as team
network.ONE_THREAD = 0  # every call by the whole team
torch.manual_seed(0)
one, two = One().eval(), Two().eval()
plain, second = One().eval(), Two().eval()
plain.load_state_dict(one.state_dict()); second.load_state_dict(two.state_dict())
AUTO = torch.export.Dim.AUTO
with torch.no_grad():
    DOORS
states = [nn.Parameter(torch.full((16,), v)) for v in (1.0, 2.0, 3.0)]
tolerance = dict(rtol=1e-4, atol=1e-5)
failures, going = [], True

def check_one(x, got, base):
    ok = any(torch.allclose(got, base * v, **tolerance) for v in (1.0, 2.0, 3.0))
    if not ok:
        failures.append(("one", tuple(x.shape)))

def work(seed):
    try:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for i in range(200):
                rows = 2 + (seed + i) % 7
                x = torch.randn(16 * rows, 256, generator=generator)
                base = plain(x)
                check_one(x, ours_one(x), base)
                z = torch.randn(2 + i % 3, 3, 9, 8 + (i % 2), generator=generator)
                if not torch.allclose(ours_two(z), second(z), **tolerance):
                    failures.append(("two", tuple(z.shape)))
    except BaseException as error:
        failures.append(repr(error))

def change():
    i = 0
    while going:
        i += 1
        one.s = states[i % 3]

threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
changer = threading.Thread(target=change)
changer.start()
[t.start() for t in threads]; [t.join() for t in threads]
going = False; changer.join()
assert not failures, failures[:5]
assert team.team().used
print("done")
"""

EXPORT = """
    ours_one = torch_aio.compile(one, (torch.randn(4, 256),), dynamic_shapes={"x": {0: AUTO}})
    ours_two = torch_aio.compile(
        two, (torch.randn(2, 3, 9, 8),), dynamic_shapes={"x": {0: AUTO, 3: AUTO}})
"""
DYNAMO = """
    ours_one = torch.compile(one, backend="aio", dynamic=True)
    ours_two = torch.compile(two, backend="aio", dynamic=True)
    for s in (one.s, nn.Parameter(torch.ones(16))):
        one.s = s
        ours_one(torch.randn(32, 256))  # the first graph is bound to one.s, the second takes any
"""


def test_threads_and_changing_weights():
    """Export door: 4 threads x 200 calls of two models, sizes and weights changing meanwhile."""
    done = subprocesses.run(THREADS.replace("    DOORS", EXPORT), limit=150)
    assert "done" in done.stdout
    assert "runs on PyTorch" not in done.stderr
    assert "runs in plain PyTorch" not in done.stderr


def test_threads_and_changing_weights_by_torch_compile():
    done = subprocesses.run(THREADS.replace("    DOORS", DYNAMO), limit=200)
    assert "done" in done.stdout
    assert "runs on PyTorch" not in done.stderr


FORK = """
import os, sys, torch, torch_aio
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(256, 256), torch.nn.Linear(256, 256)
    def forward(self, x):
        return self.b(torch.fft.fft(torch.relu(self.a(x))).real)
model = Model().eval()
x = torch.randn(256, 256)
with torch.no_grad():
    compiled = torch_aio.compile(model, (x,))
    expected = compiled(x)
    torch.testing.assert_close(expected, model(x), rtol=1e-3, atol=1e-3)
    from torch_aio.runtime import threads
    assert threads.team().used
    child = os.fork()
    if child == 0:
        torch.testing.assert_close(compiled(x), expected)
        big = torch.randn(2000, 1000)
        assert (big.exp() + big).isfinite().all()  # ATen's own parallel loop
        torch.testing.assert_close(model(x), expected, rtol=1e-3, atol=1e-3)
        fresh = torch_aio.compile(Model().eval(), (x,))  # compiles, packs, runs in the child
        assert fresh(x).isfinite().all()
        sys.stdout.write("child done\\n"); sys.stdout.flush()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    torch.testing.assert_close(compiled(x), expected)
    assert torch.get_num_threads() == 2
print("parent done")
"""


def test_fork_of_a_live_process():
    done = subprocesses.run(FORK, AIO_NUM_THREADS="2")
    assert "child done" in done.stdout
    assert "parent done" in done.stdout


COUNT = """
import torch, torch_aio
from torch_aio.runtime import network
network.ONE_THREAD = 0  # this small model shall run on the whole team
model = torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.GELU(), torch.nn.Linear(96, 8)).eval()
x = torch.randn(333, 64)
with torch.no_grad():
    compiled = torch_aio.compile(model, (x,))
    from torch_aio.runtime import network
    network.ONE_THREAD = 0
    expected = model(x)
    for count in (1, 2, 1, 2, 4, 1, 3):
        torch.set_num_threads(count)
        for _ in range(3):
            torch.testing.assert_close(compiled(x), expected)
            torch.testing.assert_close(model(x), expected)
print("done")
"""


def test_the_thread_count_changes_between_calls():
    assert "done" in subprocesses.run(COUNT).stdout
