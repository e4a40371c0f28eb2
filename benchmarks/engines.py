"""The engines of the race: each makes a callable of the model's inputs, the way its users do."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.models import Model

Run = Callable[..., Any]


@dataclass(frozen=True)
class Engine:
    """How to compile a model, and the environment its process needs."""

    name: str
    title: str
    compile: Callable[[Model, int], Run]
    package: str = "torch"
    environment: dict[str, str] = field(default_factory=lambda: {"AIO_PROCESS_MODE": "0"})

    @property
    def is_ours(self) -> bool:
        """Whether it is a door of torch-aio; the others are its peers."""
        return self.package == "torch-aio"


def eager(model: Model, threads: int) -> Run:
    """PyTorch as it is."""
    del threads
    return model.module


def frozen(model: Model, threads: int) -> Run:
    """Traced and frozen TorchScript; on torch-aio if the process has it on."""
    del threads
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.freeze(torch.jit.trace(model.module, model.inputs))


def torchscript(model: Model, threads: int) -> Run:
    """TorchScript at its best: oneDNN's layouts and its folding of batch norms too."""
    return torch.jit.optimize_for_inference(frozen(model, threads))


def inductor(model: Model, threads: int) -> Run:
    """torch.compile as it is."""
    del threads
    return torch.compile(model.module)


def inductor_freezing(model: Model, threads: int) -> Run:
    """torch.compile with frozen weights, packed ahead for oneDNN."""
    from torch._inductor import config

    config.freezing = True
    return inductor(model, threads)


def zentorch(model: Model, threads: int) -> Run:
    """AMD's plugin (2.14.0.1 works with torch 2.14) in Inductor, frozen, as its manual says."""
    from torch._inductor import config

    del threads
    import_module("zentorch")  # registers the backend
    config.freezing = True
    return torch.compile(model.module, backend="zentorch")


def onnxruntime(model: Model, threads: int) -> Run:
    """ONNX Runtime's CPU provider on the exported model."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(model, path)
        return onnx_session(path, threads)


def export_onnx(model: Model, path: Path) -> None:
    """The model as a file (and another with its weights)."""
    torch.onnx.export(model.module, model.inputs, path, dynamo=True, verbose=False)


def onnx_session(path: Path, threads: int) -> Run:
    """A session of ONNX Runtime on a file."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [argument.name for argument in session.get_inputs()]

    def run(*inputs: Tensor) -> list[Tensor]:
        arrays = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        return [torch.from_numpy(y) for y in session.run(None, arrays)]

    return run


def openvino(model: Model, threads: int) -> Run:
    """OpenVINO's CPU plugin in fp32 (its own choice would be bf16 where the CPU has it)."""
    import openvino as ov

    try:
        converted = ov.convert_model(model.module, example_input=model.inputs)
    except Exception:  # its tracing knows less than torch.export: GPT-2's mask
        converted = ov.convert_model(torch.export.export(model.module, model.inputs))
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    # Static shapes, as the others see them.
    converted.reshape(
        {port: list(x.shape) for port, x in zip(converted.inputs, model.inputs, strict=True)}
    )
    request = ov.Core().compile_model(converted, "CPU", settings).create_infer_request()

    def run(*inputs: Tensor) -> list[Tensor]:
        result = request.infer([x.numpy() for x in inputs], share_inputs=True)
        return [torch.from_numpy(y) for y in result.values()]

    return run


def aio_compile(model: Model, threads: int) -> Run:
    """torch-aio through torch.compile."""
    del threads
    return torch.compile(model.module, backend="aio")


def aio_export(model: Model, threads: int) -> Run:
    """torch-aio through its own door, a plain callable."""
    del threads
    import torch_aio

    return torch_aio.compile(model.module, model.inputs)


ON = {"AIO_PROCESS_MODE": "1", "AIO_DEBUG_MODE": "1"}
ENGINES = (
    Engine("eager", "eager", eager),
    Engine("torchscript", "TorchScript", torchscript),
    Engine("inductor", "Inductor", inductor),
    Engine("inductor-freezing", "Inductor, freezing", inductor_freezing),
    Engine("onnxruntime", "ONNX Runtime", onnxruntime, "onnxruntime"),
    Engine("openvino", "OpenVINO", openvino, "openvino"),
    Engine("zentorch", "zentorch", zentorch, "zentorch"),
    Engine("aio-compile", "torch-aio, compile", aio_compile, "torch-aio", ON),
    Engine("aio-freeze", "torch-aio, freeze", frozen, "torch-aio", ON),
    Engine("aio-export", "torch-aio, own door", aio_export, "torch-aio", ON),
)


def find(name: str) -> Engine:
    """The engine of this name."""
    for engine in ENGINES:
        if engine.name == name:
            return engine
    raise SystemExit(f"no engine {name!r}; there are {', '.join(e.name for e in ENGINES)}")
