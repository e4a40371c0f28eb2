"""Every private name of torch that the front doors use, looked up when first asked for.

``compat.X`` is the object behind ``NAMES["X"]``. Importing this module imports none of them:
``torch._dynamo`` alone costs 1.5 to 2 s. A test resolves each row, so a PyTorch release that moves
one of them fails there and not in a user's program.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch

NAMES: dict[str, str] = {
    # The capture of functional ATen (capture/aten.py).
    "aot_module_simplified": "torch._functorch.aot_autograd:aot_module_simplified",
    "functorch_config": "torch._functorch:config",
    "override_composites": "torch.export.exported_program:_override_composite_implicit_decomp",
    "is_preservable": "torch._export.utils:_is_preservable_cia_op",
    "TracingContext": "torch._guards:TracingContext",
    "tracing": "torch._guards:tracing",
    # Weights bound to a graph (capture/bound.py).
    "CompileContext": "torch._guards:CompileContext",
    "GuardBuilder": "torch._dynamo.guards:GuardBuilder",
    "detect_fake_mode": "torch._guards:detect_fake_mode",
    "FakeTensorMode": "torch._subclasses.fake_tensor:FakeTensorMode",
    "DisableAutocast": "torch._C:_DisableAutocast",
    # Who looks on at an operator called outside of any graph (capture/eager.py).
    "is_tracing": "torch._C:_is_tracing",
    "modes": "torch._C:_len_torch_dispatch_stack",
    "transform": "torch._C._functorch:peek_interpreter_stack",
    # Exceptions by which Dynamo talks to itself through a backend (capture/dynamo.py).
    "RestartAnalysis": "torch._dynamo.exc:RestartAnalysis",
    "SkipFrame": "torch._dynamo.exc:SkipFrame",
    "counters": "torch._dynamo.utils:counters",
    # Nodes that switch modes inside a Dynamo graph (capture/gradient.py).
    "set_grad_enabled": "torch._C:_set_grad_enabled",
    "enter_inference_mode": "torch.autograd.grad_mode:_enter_inference_mode",
    "exit_inference_mode": "torch.autograd.grad_mode:_exit_inference_mode",
    "HigherOrderOperator": "torch._ops:HigherOrderOperator",
}


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = NAMES[name].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    globals()[name] = found
    return found


def source_of(placeholder: torch.fx.Node) -> str:
    """Where Dynamo found the value of an input, as Python: ``L['self']._modules['fc']...``.

    The empty string where this PyTorch does not say.
    """
    source = getattr(placeholder, "_dynamo_source", None)
    if source is None:
        source = getattr(placeholder.meta.get("grapharg"), "source", None)
    name = getattr(source, "name", "")
    return str(name() if callable(name) else name)  # a method up to 2.9, a property since


def children_of(structure: Any) -> list[Any]:
    """The parts of a pytree's structure."""
    children = getattr(structure, "children", None)  # since 2.10
    return list(children() if children is not None else structure.children_specs)
