"""The torch.compile front door: ``torch.compile(model, backend="aio", options={...})``."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import torch
from torch import fx

from torch_aio import banner, config, log
from torch_aio.capture import compat
from torch_aio.capture.aten import Functional, Refused, functional
from torch_aio.capture.bound import bound, forget
from torch_aio.capture.form import into_form, qualified_name
from torch_aio.capture.gradient import Modes, Run, copied, guarded, without_modes
from torch_aio.compiling import uncollected
from torch_aio.engine.captured import Captured
from torch_aio.engine.compiled import compile_graph

_BUFFER = re.compile(r"_(parameters|buffers)\[")

logger = logging.getLogger("torch_aio.capture")


def backend(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """Compile what Dynamo captured; the entry point ``aio`` of ``torch_dynamo_backends``.

    ``mode`` is accepted and means nothing here. Unknown options raise ConfigError. Where we
    cannot, or by design do not, take the graph, it is returned as it came, with a notice;
    ``AIO_STRICT=1`` (option ``strict``) raises for what is a failure of ours.
    """
    del mode
    if not config.read().process_mode:
        return gm
    wanted = config.Options.from_mapping(options)
    banner.at_first_compile()
    counters = compat.counters["aio"]
    name = name_of(gm)
    try:
        compiled = _compile(gm, example_inputs, name, wanted)
    except (compat.RestartAnalysis, compat.SkipFrame):
        raise
    except Refused as refusal:
        counters["refused"] += 1
        log.notice_once(f"refused {name} {refusal}", f"{name} runs in plain PyTorch: {refusal}")
        return gm
    except Exception as error:
        counters["failed"] += 1
        if wanted.strict:
            raise
        logger.warning(
            "%s runs in plain PyTorch: %s: %s", name, type(error).__name__, error, exc_info=_debug()
        )
        return gm
    counters["compiled"] += 1
    return compiled


def reset() -> None:
    """Forget, as ``torch.compiler.reset()`` asks; compiled graphs die with Dynamo's."""
    compat.counters["aio"].clear()
    forget()


backend.reset = reset  # type: ignore[attr-defined]


def name_of(gm: fx.GraphModule) -> str:
    """What to call a graph in messages: the user's function and where it is."""
    for node in gm.graph.nodes:
        trace = node.meta.get("stack_trace") or ""
        frame = re.search(r'File "([^"]+)", line (\d+), in (\S+)', trace)
        if frame:
            path, line, function = frame.groups()
            return f"{function} ({path.rsplit('/', 1)[-1]}:{line})"
    return "a graph"


@uncollected()
def _compile(
    gm: fx.GraphModule, examples: Sequence[Any], name: str, options: config.Options
) -> Callable[..., Any]:
    begin = perf_counter()
    _check(examples)
    sources = [compat.source_of(node) for node in gm.graph.find_nodes(op="placeholder")]
    plain, modes = without_modes(gm)
    traced = functional(plain, examples)
    constants = _constants(traced, examples, sources)
    module, live, arguments = into_form(traced.module, constants)
    logger.debug("%s:\n%s", name, module.graph)
    eager, fallback = gm.forward, plain.forward
    tensors = [i for i, example in enumerate(examples) if isinstance(example, torch.Tensor)]
    held = bound(gm, constants) if traced.plain and modes == Modes() else None
    if held is not None:
        eager = fallback = held.complete(copied(gm).forward)
        tensors = _among(held.arriving, tensors)
        arguments = tuple(_among(held.arriving, arguments))
    captured = Captured(
        module=module,
        arguments=arguments,
        fallback=fallback,
        name=name,
        door="torch.compile",
        live=live,
        bound=None if held is None else held.weights,
        seconds=perf_counter() - begin,
    )
    run: Run = compile_graph(captured, options)
    if not traced.plain:
        traced.bind(run)
        run = traced.call
    run = _without_autocast(run)
    run = guarded(run, eager, tensors, modes, pure=not traced.mutated, name=name)
    if held is not None:
        held.take_effect()
    return run


def _among(positions: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Where the ``wanted`` that are among ``positions`` stand there."""
    return [positions.index(i) for i in wanted if i in positions]


def _check(examples: Sequence[Any]) -> None:
    """Raise Refused for inputs that no engine of dense CPU tensors can take."""
    for example in examples:
        if not isinstance(example, torch.Tensor):
            if not isinstance(example, (int, float, torch.SymInt, torch.SymFloat)):
                raise Refused(f"an input is a {type(example).__name__}, not a tensor or number")
        elif type(example) not in (torch.Tensor, torch.nn.Parameter):
            raise Refused(f"an input is a tensor subclass, {type(example).__name__}")
        elif example.device.type != "cpu":
            raise Refused(f"an input is on the device {example.device}")
        elif example.layout is not torch.strided or example.is_neg() or example.is_conj():
            raise Refused("an input is sparse, or a lazily negated or conjugated view")


def _constants(
    traced: Functional, examples: Sequence[Any], sources: Sequence[str]
) -> dict[int, tuple[str, torch.Tensor]]:
    """The inputs that are weights: parameters and buffers neither changed nor returned.

    Static *addresses* (AOT's static_input_indices) are something else: the keys and values of a
    static cache are among them.
    """
    placeholders = len(traced.module.graph.find_nodes(op="placeholder"))
    if placeholders != len(examples):
        return {}
    return {
        i: (qualified_name(source) or f"argument {i}", example)
        for i, (example, source) in enumerate(zip(examples, sources, strict=True))
        if isinstance(example, torch.Tensor)
        and i not in traced.mutated
        and i not in traced.returned
        and (isinstance(example, torch.nn.Parameter) or _BUFFER.search(source))
    }


def _without_autocast(run: Run) -> Run:
    """Autocast is in the graph already, as casts: it must not act on its operators once more."""
    if not torch.is_autocast_enabled("cpu"):
        return run

    def call(*args: Any) -> Sequence[Any]:
        with compat.DisableAutocast():
            return run(*args)

    return call


def _debug() -> bool:
    return logger.isEnabledFor(logging.DEBUG)
