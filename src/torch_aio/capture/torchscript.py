"""The TorchScript door: frozen modules run on the engine, and stay what they are to others.

``install()`` wraps the one place where every ScriptModule is finished, and puts a ``Runner`` in
the instance dictionary of those that are frozen: it wins over the class's ``forward``. Graphs are
read and compiled at the first call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from torch_aio import log

_installed = False


def install() -> None:
    """Hook into torch.jit, once."""
    global _installed  # noqa: PLW0603 - PyTorch is hooked once per process
    if _installed:
        return
    _installed = True
    script_module = torch.jit._script.RecursiveScriptModule
    script_module._finalize_scriptmodule = staticmethod(  # type: ignore[method-assign]
        _finalize(script_module._finalize_scriptmodule)
    )
    torch.jit.freeze = _freeze(torch.jit.freeze)
    torch.jit.optimize_for_inference = _optimize(torch.jit.optimize_for_inference)


def runner_of(module: Any, method: str = "forward") -> Any:
    """The runner of a method, None if it has none."""
    found = module.__dict__.get(method)
    return found if hasattr(type(found), "keep_graph") else None


def accelerate(module: Any) -> None:
    """Put runners in front of a frozen module's methods; other modules are left alone."""
    if not _is_frozen(module._c):
        return
    from torch_aio.capture.ts_runner import Runner  # noqa: PLC0415 - the first frozen module pays

    for method in module._c._method_names():
        if runner_of(module, method) is None and not method.startswith("__"):
            module.__dict__[method] = Runner(module._c, method)


def _is_frozen(module: Any) -> bool:
    """Freezing takes away the mode; every other module has one."""
    return not module.hasattr("training")


def _guarded(module: Any) -> None:
    try:
        accelerate(module)
    except Exception as error:
        log.warning("a frozen module runs in TorchScript: %s: %s", type(error).__name__, error)


def _finalize(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def finalize(script_module: Any) -> None:
        original(script_module)
        _guarded(script_module)

    return finalize


def _freeze(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def freeze(mod: Any, *args: Any, **kwargs: Any) -> Any:
        frozen = original(mod, *args, **kwargs)
        _guarded(frozen)  # its optimisations look methods up, which replaces ours
        return frozen

    return freeze


def _optimize(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def optimize_for_inference(mod: Any, other_methods: Sequence[str] | None = None) -> Any:
        if isinstance(mod, torch.jit.ScriptModule) and hasattr(mod, "training"):
            mod = torch.jit.freeze(mod.eval(), preserved_attrs=list(other_methods or []))
        # The passes below put MKLDNN operators into the graph, in place.
        if isinstance(mod, torch.jit._script.RecursiveScriptModule):
            for method in mod._c._method_names():
                runner = runner_of(mod, method)
                if runner is not None:
                    runner.keep_graph()
        optimized = original(mod, other_methods)
        _guarded(optimized)
        return optimized

    return optimize_for_inference
