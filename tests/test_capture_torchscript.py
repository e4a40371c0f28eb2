"""The TorchScript door: frozen modules run our graph, give TorchScript's answers, stay modules."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import textwrap
import warnings
from typing import Dict, List, NamedTuple, Optional, Tuple  # noqa: UP035 - TorchScript wants them

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_aio import errors, explain, log, switch
from torch_aio.capture import torchscript, ts_specialize
from torch_aio.capture.torchscript import runner_of
from torch_aio.ir.spec import TensorSpec


@pytest.fixture(autouse=True)
def _strict(monkeypatch):
    torchscript.install()
    monkeypatch.setenv("AIO_STRICT", "1")
    torch.manual_seed(0)


def frozen(model, *inputs, how="script", **kwargs):
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        model = model.eval()
        made = torch.jit.script(model) if how == "script" else torch.jit.trace(model, inputs)
        return torch.jit.freeze(made, **kwargs)


def assert_same(ours, theirs):
    assert type(ours) is type(theirs)
    if isinstance(ours, torch.Tensor):
        torch.testing.assert_close(ours, theirs, equal_nan=True)
        assert ours.stride() == theirs.stride()
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        assert_same(list(ours.values()), list(theirs.values()))
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b)
    else:
        assert ours == theirs


def agrees(module, *args, method="forward", **kwargs):
    """A call gives the original ScriptMethod's answer; returns it."""
    runner = runner_of(module, method)
    with torch.no_grad():
        theirs = runner._original(*args, **kwargs)
        ours = getattr(module, method)(*args, **kwargs)
    assert_same(ours, theirs)
    return ours


def specs_hold(form, *inputs):
    """Every node's spec is what running the graph gives."""

    class Checked(torch.fx.Interpreter):
        def run_node(self, node):
            value = super().run_node(node)
            if node.op != "output":
                self.compare(node, node.meta["spec"], value)
            return value

        def compare(self, node, spec, value):
            if isinstance(value, torch.Tensor):
                real = TensorSpec(tuple(value.shape), value.dtype, tuple(value.stride()))
                assert real == spec, node.format_node()
            elif isinstance(value, (list, tuple)):
                for s, v in zip(spec, value, strict=True):
                    self.compare(node, s, v)

    with torch.no_grad():
        Checked(form).run(*inputs)


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)
        self.norm = nn.LayerNorm(3)

    def forward(self, x):
        return self.norm(self.b(torch.relu(self.a(x))))


@pytest.mark.parametrize("how", ["script", "trace"])
def test_tiny(how):
    module = frozen(Tiny(), torch.randn(2, 4), how=how)
    agrees(module, torch.randn(2, 4))
    (form,) = runner_of(module).forms
    targets = [n.target for n in form.graph.nodes if n.op == "call_function"]
    assert targets.count(torch.ops.aten.linear.default) == 2
    assert {n.meta["name"] for n in form.graph.nodes if n.op == "get_attr"} >= {
        "a.weight",
        "b.bias",
    }
    linear = next(n for n in form.graph.nodes if n.target is torch.ops.aten.linear.default)
    assert linear.meta["path"] == "a"
    assert linear.meta["source"].startswith("linear.py:") or "test_capture" in linear.meta["source"]


class Vision(nn.Module):
    """A U-Net in small: lists of skips, slices of lists, pop, upsampling."""

    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList(
            [nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 2, 1)]
        )
        self.norms = nn.ModuleList([nn.GroupNorm(4, 8), nn.BatchNorm2d(16), nn.GroupNorm(4, 16)])
        self.up = nn.ConvTranspose2d(16, 16, 2, 2)
        self.mix = nn.Conv2d(32, 8, 3, padding=1)
        self.scale = nn.Upsample(scale_factor=2.0, mode="bilinear")
        self.last = nn.Conv2d(16, 3, 1)

    def forward(self, x):
        skips = []
        for conv, norm in zip(self.down, self.norms):  # noqa: B905 - scripted
            x = F.silu(norm(conv(x)))
            skips.append(x)
        skips = skips[:-1]
        x = self.mix(torch.cat([self.up(x), skips.pop()], 1))
        return self.last(torch.cat([self.scale(x), skips[-1]], 1))


def torchvision_model(name):
    models = pytest.importorskip("torchvision.models")
    if name == "vit":
        return models.VisionTransformer(32, 16, 2, 4, 32, 64)
    return getattr(models, name)()


@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.parametrize("name", ["unet", "resnet18", "mobilenet_v2", "vit"])
def test_vision(name, how):
    model = Vision() if name == "unet" else torchvision_model(name)
    x = torch.randn(1, 3, 32, 32)
    module = frozen(model, x, how=how)
    agrees(module, x)
    (form,) = runner_of(module).forms
    specs_hold(form, x)
    assert not any("native_multi_head" in str(n.target) for n in form.graph.nodes)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bert(attention):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        num_hidden_layers=2,
        hidden_size=32,
        num_attention_heads=2,
        intermediate_size=64,
        vocab_size=50,
        attn_implementation=attention,
    )
    config.return_dict = False
    inputs = (torch.randint(0, 50, (2, 9)), torch.ones(2, 9).long())
    inputs[1][1, 6:] = 0
    module = frozen(transformers.BertModel(config), *inputs, how="trace")
    agrees(module, *inputs)
    specs_hold(runner_of(module).forms[0], *inputs)


@pytest.mark.parametrize("need_weights", [True, False])
def test_multihead_attention_fast_path(need_weights):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.m = nn.MultiheadAttention(16, 4, batch_first=True)
            self.need = need_weights

        def forward(self, x, pad: Optional[torch.Tensor] = None):  # noqa: UP045 - scripted
            out, weights = self.m(x, x, x, key_padding_mask=pad, need_weights=self.need)
            # Without weights TorchScript itself cannot return the undefined tensor it has instead.
            return (out, weights) if weights is not None and self.need else (out, out)

    module = frozen(Attention())
    x = torch.randn(2, 5, 16)
    agrees(module, x)
    pad = torch.zeros(2, 5).bool()
    pad[1, 3:] = True
    agrees(module, x, pad)
    agrees(frozen(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True)), x)
    agrees(frozen(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, activation="gelu")), x)


class Structures(nn.Module):
    def forward(
        self,
        xs: List[torch.Tensor],  # noqa: UP006 - scripted
        named: Dict[str, torch.Tensor],  # noqa: UP006 - scripted
        scale: float = 2.0,
        times: int = 3,
        extra: Optional[torch.Tensor] = None,  # noqa: UP045 - scripted
    ):
        total = torch.zeros_like(xs[0])
        for x in xs:
            total = total + x * scale
        out: Dict[str, List[torch.Tensor]] = {}  # noqa: UP006 - scripted
        for key, value in named.items():
            out[key] = [value + i for i in range(times)]
        if extra is not None:
            total = total * extra
        return total, (out, [total.size(0), times]), scale, extra is None, "done"


def test_containers_defaults_and_keywords():
    module = frozen(Structures())
    xs, named = [torch.randn(2, 3), torch.randn(2, 3)], {"a": torch.randn(2), "b": torch.randn(3)}
    agrees(module, xs, named)
    agrees(module, xs, named, 3.0)
    agrees(module, xs, named, times=1, scale=0.5)
    agrees(module, xs=xs, named=named, extra=torch.randn(2, 3))
    agrees(module, tuple(xs), named, 3)
    with pytest.raises(RuntimeError, match="missing value for argument"):
        module(xs)
    with pytest.raises(RuntimeError, match="Unknown keyword"):
        module(xs, named, wrong=1)
    assert runner_of(module).captures >= 4


class Branches(nn.Module):
    """A branch on a tensor's value and a loop whose length is data."""

    def __init__(self):
        super().__init__()
        self.l, self.n = nn.Linear(4, 4), nn.LayerNorm(4)

    def forward(self, x):
        y = self.n(torch.relu(self.l(x))) + x
        y = torch.tanh(y * 2) + 1 if bool(y.sum() > 0) else torch.sigmoid(y - 1) * 2
        for i in range(int(x.abs().max().item() * 4)):
            y = torch.relu(self.l(y)) + y * 0.5
            a, b = y.chunk(2, -1)
            y = torch.cat([b, a], -1) + i
        rows = y.size(0)
        y = self.l(y)
        return y.view(rows * 2, -1), [rows, y.dim()]


def test_data_dependent_control_flow_runs_in_segments():
    module = frozen(Branches())
    for n in (2, 2, 3, 4, 1, 2, 6):
        agrees(module, torch.randn(n, 4))
    segments = runner_of(module)._call.segments
    assert len(segments) == 6
    assert all(s.specializer.captures for s in segments)
    assert not any(s._broken for s in segments)
    assert "aio::run" not in str(module.graph)
    found = explain(module, torch.randn(3, 4))
    assert found.networks >= 3
    assert found.nodes == 1.0, found.left_to_aten


def test_updates_in_segments_reach_their_base():
    class Updates(nn.Module):
        def forward(self, x):
            y = torch.relu(x) * 2
            row = y[0]
            if bool(x.sum() > 0):
                row += 1
            z = torch.tanh(y) + 1
            z[:, 0] = x[:, 1]
            return y * 1.5, z

    module = frozen(Updates())
    for sign in (1, -1):
        agrees(module, sign * torch.rand(3, 4))


class InPlace(nn.Module):
    def forward(self, x, y):
        z = torch.zeros(3, 4)
        z[0] = x[0]
        z[1:, :2] += y[1:, :2]
        row = z.t()[1]
        row.mul_(3)
        w = x.clone()
        w.view(-1)[2:5] = 7.0
        w.relu_()
        w[w.size(0) - 1].copy_(y[0])
        w.unsqueeze(0)[0, 0].fill_(2)
        return z, w, row


def test_in_place_updates_of_views():
    module = frozen(InPlace())
    agrees(module, torch.randn(3, 4), torch.randn(3, 4))
    assert runner_of(module).captures == 1
    (form,) = runner_of(module).forms
    assert not any(
        str(n.target).split(".")[1].endswith("_")
        for n in form.graph.nodes
        if n.op == "call_function"
    )


def test_input_updates_happen_once():
    class Add(nn.Module):
        def forward(self, x, y):
            x.add_(y)
            x[0] *= 2
            return x, x * 2

    module = frozen(Add())
    x, y = torch.randn(3), torch.randn(3)
    ours, theirs = x.clone(), x.clone()
    with torch.no_grad():
        out = module(ours, y)
        expected = runner_of(module)._original(theirs, y)
    assert_same(ours, theirs)
    assert_same(out, expected)
    assert out[0] is ours
    assert runner_of(module).captures == 1
    with torch.no_grad():  # overlapping arguments are PyTorch's
        both = x.clone()
        module(both, both)
        theirs = x.clone()
        runner_of(module)._original(theirs, theirs)
    assert_same(both, theirs)


class State(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(3, 4)
        self.h = torch.zeros(1, 4)
        self.c = torch.zeros(1, 4)
        self.calls = 0

    def forward(self, x):
        if self.h.shape[0] != x.shape[0]:
            self.h = torch.zeros(x.shape[0], 4)
            self.c = torch.zeros(x.shape[0], 4)
        self.h, self.c = self.cell(x, (self.h, self.c))
        self.calls += 1
        return self.h * 2

    @torch.jit.export
    def reset(self, batch: int = 1):
        self.h = torch.zeros(batch, 4)
        self.c = torch.zeros(batch, 4)
        self.calls = 0

    @torch.jit.export
    def peek(self, x):
        return torch.relu(x + self.h)


def test_state_and_preserved_methods():
    torch.manual_seed(1)
    model = State()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = torch.jit.script(model.eval())
    module = frozen(model, preserved_attrs=["reset", "peek", "calls"])
    assert runner_of(module, "peek") is not None
    with torch.no_grad():
        for step in range(8):
            x = torch.randn(1 if step < 5 else 2, 3)
            assert_same(module(x), reference(x))
            assert_same(module.peek(torch.ones(4)), reference.peek(torch.ones(4)))
            if step == 3:
                module.reset()
                reference.reset()
            assert module.calls == reference.calls
    assert 2 <= runner_of(module).captures <= 6


def test_save_and_load_elsewhere(tmp_path):
    """The file is TorchScript's own; another process runs it on the engine, or without us."""
    module = frozen(Tiny())
    x = torch.randn(2, 4)
    expected = agrees(module, x)
    path = tmp_path / "model.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(module, str(path))
    torch.save((x, expected), tmp_path / "io.pt")
    code = textwrap.dedent(f"""
        import sys, warnings
        warnings.simplefilter("ignore")
        import torch
        if INSTALL:
            from torch_aio.capture import torchscript
            torchscript.install()
        m = torch.jit.load({str(path)!r})
        x, expected = torch.load({str(tmp_path / "io.pt")!r})
        with torch.no_grad():
            torch.testing.assert_close(m(x), expected)
        if INSTALL:
            assert torchscript.runner_of(m).captures == 1
            assert "torch._dynamo" not in sys.modules
    """)
    for install in ("True", "False"):
        done = subprocess.run(
            [sys.executable, "-c", code.replace("INSTALL", install)],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]


def test_optimize_for_inference():
    """Compiled from the graph before MKLDNN's operators enter it."""
    model = torchvision_model("resnet18").eval()
    x = torch.randn(1, 3, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.optimize_for_inference(torch.jit.script(model))
    with torch.no_grad():
        torch.testing.assert_close(module(x), model(x), rtol=1e-3, atol=1e-3)
    assert runner_of(module).captures == 1
    assert "mkldnn" in str(module.graph)
    assert not any("mkldnn" in str(n.target) for n in runner_of(module).forms[0].graph.nodes)


def test_stays_a_script_module():
    module = frozen(Tiny())
    assert isinstance(module, torch.jit.RecursiveScriptModule)
    assert "aten::linear" in str(module.graph)
    assert "linear" in module.code
    assert module.forward.schema.name == "forward"
    assert "linear" in module.forward.code
    assert list(module.state_dict()) == []
    buffer = module.save_to_buffer()
    assert isinstance(buffer, bytes)
    assert runner_of(copy.copy(module)) is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.script(Tiny())
    assert runner_of(script) is None


def test_hands_over(monkeypatch):
    module = frozen(Tiny())
    runner = runner_of(module)
    x = torch.randn(2, 4)
    monkeypatch.setattr(runner, "_run", None)
    runner._call = None  # calling it would fail

    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert module(x).shape == (2, 3)
    torch.vmap(module)(torch.randn(3, 2, 4))
    switch.disable()
    try:
        module(x)
    finally:
        switch.enable()
    with pytest.raises(TypeError):
        module(x)


def test_gradients_are_eagers():
    module = frozen(Tiny())
    x = torch.randn(2, 4, requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None
    assert runner_of(module).captures == 0
    with torch.no_grad():
        module(x)
    module(torch.randn(2, 4))
    assert runner_of(module).captures == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.randn(2, 4, dtype=torch.complex64),
        lambda: torch.randn(2, 4, device="meta"),
        lambda: torch.randn(2, 4).to_sparse(),
    ],
)
def test_foreign_tensors_get_pytorchs_answer_or_error(make):
    module = frozen(nn.ReLU() if make().dtype is torch.float32 else Tiny())
    runner = runner_of(module)

    def outcome(function):
        try:
            with torch.no_grad():
                return function(make()).shape
        except RuntimeError as error:
            return type(error)

    assert outcome(module) == outcome(runner._original)
    assert runner.captures == 0


def test_errors_of_the_model_are_the_models():
    class Picky(nn.Module):
        def forward(self, x):
            if x.shape[0] > 2:
                raise ValueError("too many rows")
            return torch.relu(x @ torch.ones(4, 4))

    module = frozen(Picky())
    agrees(module, torch.randn(2, 4))
    with pytest.raises(torch.jit.Error, match="too many rows"):
        module(torch.randn(3, 4))
    with pytest.raises(RuntimeError, match=r"size|shape"):
        module(torch.randn(2, 5))
    agrees(module, torch.randn(1, 4))


def test_failure_of_ours_warns_once_and_falls_back(monkeypatch):
    module = frozen(Tiny())
    messages = []
    monkeypatch.setattr(log, "warning", lambda text, *args: messages.append(text % args))

    def broken(*_):
        raise errors.CompileError("no kernel", node="linear (model.py:3)")

    monkeypatch.setattr("torch_aio.capture.ts_capture.compile_graph", broken)
    with pytest.raises(errors.CompileError, match="no kernel"):
        module(torch.randn(2, 4))
    monkeypatch.setenv("AIO_STRICT", "0")
    for _ in range(3):
        assert module(torch.randn(2, 4)).shape == (2, 3)
    assert len(messages) == 1
    assert "linear (model.py:3)" in messages[0]


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))
        self.n, self.position = nn.LayerNorm(16), nn.Embedding(512, 16)

    def forward(self, x, past_k, past_v) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # noqa: UP006
        b, n, d = x.shape
        start = past_k.shape[2]
        x = x + self.position(torch.arange(start, start + n))
        y = self.n(x)
        q = self.q(y).view(b, n, 4, d // 4).transpose(1, 2)
        k = torch.cat([past_k, self.k(y).view(b, n, 4, d // 4).transpose(1, 2)], 2)
        v = torch.cat([past_v, self.v(y).view(b, n, 4, d // 4).transpose(1, 2)], 2)
        weights = torch.softmax(q @ k.transpose(-1, -2) / (d // 4) ** 0.5, -1)
        return x + self.o((weights @ v).transpose(1, 2).reshape(b, n, d)), k, v


@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.parametrize(("start", "most"), [(0, 4), (2, 2), (4, 2)])
def test_growing_length_is_captured_twice(how, start, most):
    """Once statically, once with a symbol; sizes 0 and 1 have a capture each."""
    model = Decoder().eval()
    k = torch.randn(1, 4, 3, 4)
    module = frozen(model, torch.randn(1, 1, 16), k, k, how=how)
    ours = theirs = (torch.randn(1, 4, start, 4),) * 2
    with torch.no_grad():
        for _ in range(200):
            x = torch.randn(1, 1, 16)
            y, *ours = module(x, *ours)
            expected, *theirs = model(x, *theirs)
            torch.testing.assert_close(y, expected)
    assert ours[0].shape[2] == start + 200
    assert runner_of(module).captures <= most


@pytest.mark.parametrize("how", ["script", "trace"])
def test_growing_sequence(how):
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(16, 48), nn.Linear(16, 3)

        def forward(self, x):
            n = x.size(1)
            mask = torch.ones(n, n).tril() > 0
            q, k, v = self.a(x).view(x.size(0), n, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            y = y.transpose(1, 2).reshape(-1, 16)
            return self.b(F.pad(y, [0, 0, 1, 0])).view(x.size(0), -1, 3).mean(1), x[:, -1]

    model = Encoder().eval()
    module = frozen(model, torch.randn(1, 5, 16), how=how)
    for n in range(1, 60):
        agrees(module, torch.randn(1, n, 16))
    assert runner_of(module).captures <= 3


def test_lengths_that_resist_symbols_are_capped(monkeypatch):
    class Unrolled(nn.Module):
        def forward(self, x):
            y = torch.zeros(3)
            for i in range(x.size(0)):
                y = torch.tanh(y + x[i])
            return y

    monkeypatch.setattr(ts_specialize, "MOST_STATIC", 4)
    module = frozen(Unrolled())
    for n in range(2, 12):
        agrees(module, torch.randn(n, 3))
    assert runner_of(module).captures == 4


def test_numbers_that_change_at_each_call_are_capped():
    class Scaled(nn.Module):
        def forward(self, x, s: float):
            return torch.relu(x * s)

    module = frozen(Scaled())
    for i in range(50):
        agrees(module, torch.randn(2), i / 7)
    assert runner_of(module).captures == ts_specialize.MOST_PATTERNS


def test_named_tuples_keep_their_type():
    class Pair(NamedTuple):
        a: torch.Tensor
        b: torch.Tensor

    class Named(nn.Module):
        def forward(self, x):
            return PAIR(x + 1, x * 2)  # noqa: F821 - set below, for TorchScript to find

    globals()["PAIR"] = Pair
    module = frozen(Named(), torch.randn(2), how="trace")
    out = module(torch.randn(2))
    assert type(out).__name__ == type(runner_of(module)._original(torch.randn(2))).__name__


def test_random_numbers_are_drawn_at_each_call():
    class Noise(nn.Module):
        def forward(self, x):
            return torch.relu(x + torch.rand(3))

    module = frozen(Noise())
    x = torch.zeros(3)
    assert not torch.equal(module(x), module(x))


def test_installing_is_cheap_and_imports_nothing_heavy():
    code = textwrap.dedent("""
        import torch, sys, time
        from torch_aio import config
        start = time.perf_counter()
        from torch_aio.capture import torchscript
        torchscript.install()
        spent = time.perf_counter() - start
        heavy = [m for m in ("llvmlite", "torch._dynamo", "sympy") if m in sys.modules]
        assert not heavy, heavy
        assert not any(m.startswith("torch_aio.capture.ts_") for m in sys.modules)
        assert spent < 0.01, spent
    """)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_inside_compiled_and_exported_models():
    module = frozen(Tiny())

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self, x):
            return self.inner(x + 1) * 2

    outer, x = Outer(), torch.randn(2, 4)
    with torch.no_grad():
        expected = outer(x)
        assert runner_of(module).captures == 1
        torch.testing.assert_close(torch.compile(outer, backend="eager")(x), expected)
        exported = torch.export.export(outer, (x,)).module()
        torch.testing.assert_close(exported(x), expected)
