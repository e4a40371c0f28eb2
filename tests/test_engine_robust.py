"""What is unusual ends in the right answer, by our kernels or PyTorch's, or in one clear error."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

import subprocesses
import torch_aio
from torch_aio.engine import networks
from torch_aio.engine.compiled import observed
from torch_aio.errors import CompileError, InputError
from torch_aio.plan.plan import Plan


class Model(nn.Module):
    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.fc = nn.Linear(12, 7, dtype=dtype)

    def forward(self, x):
        return torch.relu(self.fc(x)) + 1


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


def exported(function, *args):
    module = function if isinstance(function, nn.Module) else Function(function)
    return torch_aio.compile(module, args)


def dynamo(function, *args):
    return torch.compile(function, backend="aio", dynamic=False)


def frozen(function, *args):
    module = function if isinstance(function, nn.Module) else Function(function)
    return torch.jit.freeze(torch.jit.trace(module.eval(), args, check_trace=False))


DOORS = pytest.mark.parametrize("door", [exported, dynamo, frozen])


@pytest.fixture(autouse=True)
def _no_grad():
    torch.compiler.reset()
    with torch.no_grad():
        yield


def check(door, function, *args):
    expected = function(*args)
    compiled = door(function, *args)
    for _ in range(3):
        torch.testing.assert_close(compiled(*args), expected, equal_nan=True)
    return compiled


# ---- failures of ours ---------------------------------------------------------------------


@pytest.fixture
def broken_kernels(monkeypatch):
    def fail(*_):
        raise RuntimeError("out of registers")

    monkeypatch.setattr(networks, "generate", fail)
    # A name that no cache knows, so that the text is asked for.
    jit = type("Jit", (), {"address": lambda self, name, text, symbols=None: text()})()
    real = networks._kernel
    fake = type("Host", (), {"jit": jit, "isa": None})()
    monkeypatch.setattr(networks, "_kernel", lambda step, host: real(step, fake))


@DOORS
def test_a_failing_kernel_is_a_warning_that_names_the_node(door, broken_kernels, notices):
    model, x = Model().eval(), torch.randn(3, 12)
    check(door, model, x)
    warnings = [r.message for r in notices.records if r.levelname == "WARNING"]
    told = [text for text in warnings if "out of registers" in text]
    assert len(told) == 1, warnings
    assert "kernel gemm" in told[0] or "kernel gemv" in told[0], told
    assert "relu" in told[0] or "add" in told[0], told


@DOORS
def test_strict_raises(door, broken_kernels, monkeypatch):
    monkeypatch.setenv("AIO_STRICT", "1")
    model, x = Model().eval(), torch.randn(3, 12)
    with pytest.raises(CompileError, match="out of registers"):
        door(model, x)(x)


def test_a_plan_that_cannot_be_bound_falls_back(monkeypatch, notices):
    model, x = Model().eval(), torch.randn(3, 12)

    def fail(self, env):
        raise OverflowError("no arena")

    monkeypatch.setattr(Plan, "bind", fail)
    check(exported, model, x)
    assert sum("no arena" in message for message in notices.messages) == 1


def test_the_users_own_error_is_the_users(notices):
    """An index outside its table is the caller's mistake, not a failure of ours."""
    embed = nn.Embedding(10, 4).eval()
    good, bad = torch.tensor([1, 2]), torch.tensor([3, 10])
    compiled = check(exported, embed, good)
    with pytest.raises(IndexError):
        embed(bad)
    with pytest.raises(IndexError, match="index out of range"):
        compiled(bad)
    torch.testing.assert_close(compiled(good), embed(good))


# ---- kinds of inputs ----------------------------------------------------------------------


@DOORS
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int8,
              torch.uint8, torch.bool, torch.complex64],
    ids=str,
)  # fmt: skip
def test_every_dtype(door, dtype):
    x = torch.ones(3, 5).to(dtype)
    x[1] = 0
    check(door, lambda a: (a * 2 + a.sum(-1, keepdim=True)) == a, x)


@DOORS
def test_mixed_dtypes(door):
    integers, floats = torch.arange(15).reshape(3, 5), torch.randn(3, 5)
    halves = torch.randn(5).half()
    check(door, lambda a, b, c: (a + b) * c + (a > 3), integers, floats, halves)


@DOORS
def test_a_wrong_dtype_is_eagers_error(door):
    model, x = Model().eval(), torch.randn(3, 12)
    compiled = check(door, model, x)
    with pytest.raises((RuntimeError, InputError), match="dtype"):
        compiled(x.double())
    torch.testing.assert_close(compiled(x), model(x))


def test_meta_inputs():
    model = Model().eval()
    compiled = check(exported, model, torch.randn(3, 12))
    with pytest.raises(InputError, match="dense CPU tensor"):
        compiled(torch.randn(3, 12, device="meta"))
    frozen_model = check(frozen, model, torch.randn(3, 12))
    for _ in range(2):  # TorchScript's own answer
        with pytest.raises((RuntimeError, NotImplementedError)):
            frozen_model(torch.randn(3, 12, device="meta"))


@DOORS
@pytest.mark.parametrize("shape", [(0, 12), (1, 12), (3, 0, 12)], ids=str)
def test_no_elements(door, shape):
    check(door, Model().eval(), torch.randn(shape))


@DOORS
def test_images_without_channels(door, monkeypatch):
    """Eager answers them without channels, too."""
    monkeypatch.setenv("AIO_STRICT", "1")
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    model[0].weight = nn.Parameter(torch.randn(4, 0, 3, 3))
    check(door, model, torch.randn(2, 0, 8, 9))


@DOORS
def test_nothing_to_sum_over(door):
    check(door, lambda x: (x.sum(1) + 1, x + 1, torch.softmax(x, 0)), torch.randn(4, 0))


@DOORS
def test_scalars(door):
    check(door, lambda x, y: x * y + 1, torch.tensor(2.0), torch.tensor(3))


@DOORS
@pytest.mark.parametrize("offset", [1, 2, 3, 5])
def test_unaligned_inputs(door, offset):
    memory = torch.randn(200)
    x = memory[offset : offset + 36].view(3, 12)
    compiled = check(door, Model().eval(), x)
    raw = torch.frombuffer(bytearray(400), dtype=torch.uint8)[1:145]
    odd = raw.view(torch.uint8).clone()[:144].view(torch.float32).view(3, 12)
    assert torch.isfinite(compiled(odd)).all()


@DOORS
def test_strided_inputs(door):
    for x in (torch.randn(12, 3).t(), torch.randn(6, 24)[::2, ::2], torch.randn(12).expand(3, 12)):
        torch.compiler.reset()
        check(door, Model().eval(), x)


# ---- outputs ------------------------------------------------------------------------------


@DOORS
def test_outputs_are_the_callers_own(door):
    """Later calls leave earlier answers alone, and outputs may be written to."""
    x = torch.randn(4, 12)
    f = lambda a: (a.relu() @ a.T, a + 1, (a * 2).T)  # noqa: E731
    compiled = check(door, f, x)
    kept = [compiled(x + n) for n in range(5)]
    for outputs in kept[:2]:
        for output in outputs:
            output.add_(100)
    for n, outputs in enumerate(kept):
        for got, expected in zip(outputs, f(x + n), strict=True):
            torch.testing.assert_close(got, expected + 100 if n < 2 else expected)
    storages = {o.untyped_storage().data_ptr() for outputs in kept for o in outputs}
    assert len(storages) == 15


@DOORS
def test_inputs_and_their_views_as_outputs(door):
    x, y = torch.randn(4, 6), torch.randn(4, 6)

    def f(a, b):
        return a, a.T, b[1:], a + b, a.view(24)

    check(door, f, x, y)
    same, turned, part, _, flat = door(f, x, y)(x, y)
    assert same.data_ptr() == x.data_ptr()
    assert turned.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert part.data_ptr() == y[1:].data_ptr()
    assert flat.data_ptr() == x.data_ptr()


@DOORS
def test_one_output_twice_and_weights_as_outputs(door):
    weight = nn.Parameter(torch.randn(6), requires_grad=False)

    class Returns(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = weight

        def forward(self, x):
            y = x * self.weight
            return y, y, self.weight + 0, self.weight

    module = Returns().eval()
    compiled = check(door, module, torch.randn(4, 6))
    first, second, *_ = compiled(torch.randn(4, 6))
    assert first.data_ptr() == second.data_ptr()


@DOORS
def test_strides_of_outputs_are_eagers(door):
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    f = lambda a: (a + 1, a.transpose(1, 2) * 2, torch.relu(a.contiguous()))  # noqa: E731
    compiled = door(f, x)
    for got, expected in zip(compiled(x), f(x), strict=True):
        assert got.stride() == expected.stride()
        torch.testing.assert_close(got, expected)


@DOORS
def test_strides_of_constant_outputs_are_eagers(door):
    """A folded weight, large enough for huge pages, transposed."""

    class Folded(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(300, 200))

        def forward(self, x):
            return x + 1, self.weight.t() * 2

    model, x = Folded().eval(), torch.randn(4)
    expected, got = model(x)[1], door(model, x)(x)[1]
    assert torch.equal(got, expected)
    assert got.stride() == expected.stride()


def test_inputs_are_updated_once():
    x = torch.zeros(4)

    def f(a):
        a.add_(1)
        return a * 2

    for door in (exported, dynamo):
        a = x.clone()
        compiled = door(f, x.clone())
        for n in range(1, 4):
            torch.testing.assert_close(compiled(a), torch.full((4,), 2.0 * n))
            torch.testing.assert_close(a, torch.full((4,), float(n)))


# ---- the cache folder ---------------------------------------------------------------------

PROGRAM = """
import torch, torch_aio
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh()).eval()
x = torch.randn(8, 64)
with torch.no_grad():
    compiled = torch_aio.compile(model, (x,))
    torch.testing.assert_close(compiled(x), model(x))
from torch_aio.runtime.machine import machine
print("compiled", machine().jit.compiled, "loaded", machine().jit.loaded)
"""


def test_a_good_cache_is_used(tmp_path):
    folder = str(tmp_path / "cache")
    assert "loaded 0" in subprocesses.run(PROGRAM, AIO_CACHE_DIR=folder).stdout
    assert "compiled 0" in subprocesses.run(PROGRAM, AIO_CACHE_DIR=folder).stdout


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "writable entry"])
def test_damaged_entries_are_compiled_again(tmp_path, damage):
    folder = tmp_path / "cache"
    subprocesses.run(PROGRAM, AIO_CACHE_DIR=str(folder))
    entries = [p for p in folder.iterdir() if p.is_file()]
    assert entries
    for entry in entries:
        data = bytearray(entry.read_bytes())
        if damage == "flip":
            data[len(data) // 2] ^= 0xFF
        elif damage == "truncate":
            del data[len(data) // 2 :]
        elif damage == "empty":
            data.clear()
        entry.write_bytes(data)
        if damage == "writable entry":
            entry.chmod(0o666)
    done = subprocesses.run(PROGRAM, AIO_CACHE_DIR=str(folder), AIO_STRICT="1")
    assert "loaded 0" in done.stdout


def test_a_folder_that_others_can_write_is_refused(tmp_path):
    folder = tmp_path / "cache"
    subprocesses.run(PROGRAM, AIO_CACHE_DIR=str(folder))
    folder.chmod(0o777)
    done = subprocesses.run(PROGRAM, AIO_CACHE_DIR=str(folder), AIO_STRICT="1")
    assert "loaded 0" in done.stdout
    assert done.stderr.count("can be written by others") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_folder_of_another_user_is_refused(tmp_path):
    folder = tmp_path / "cache"
    subprocesses.run(PROGRAM, AIO_CACHE_DIR=str(folder))
    os.chown(folder, 12345, 12345)
    done = subprocesses.run(PROGRAM, AIO_CACHE_DIR=str(folder), AIO_STRICT="1")
    assert "loaded 0" in done.stdout
    assert done.stderr.count("belongs to another user") == 1


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    done = subprocesses.run(PROGRAM, AIO_CACHE_DIR=str(tmp_path / "file" / "cache"))
    assert "loaded 0" in done.stdout


OBEY_MODES = """
import ctypes
libc = ctypes.CDLL(None)
header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert libc.capget(header, sets) == 0
sets[0] &= ~2  # CAP_DAC_OVERRIDE: without it root, too, writes only where modes allow it
assert libc.capset(header, sets) == 0
"""


@pytest.mark.parametrize("content", ["empty", "filled"])
def test_a_read_only_folder(tmp_path, content):
    """What is there is used; what cannot be written is one notice."""
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    if content == "filled":
        subprocesses.run(PROGRAM, AIO_CACHE_DIR=str(folder))
    folder.chmod(0o500)
    done = subprocesses.run(OBEY_MODES + PROGRAM, AIO_CACHE_DIR=str(folder), AIO_STRICT="1")
    assert ("loaded 0" if content == "empty" else "compiled 0") in done.stdout
    assert done.stderr.count("no more kernels are kept") == (content == "empty")


def test_observed_graphs_are_those_called():
    x = torch.randn(3, 12)
    with observed() as graphs:
        check(exported, Model().eval(), x)
    assert len(graphs) == 1
