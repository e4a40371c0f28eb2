"""Functional ATen out of any traceable ``fx.GraphModule``, with composite operators kept whole.

Both torch.compile and torch.export pass here. The trace runs on fake tensors, so nothing of the
user's is executed or changed by it; updates of inputs become trailing ``copy_`` nodes.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule

from torch_aio.capture import compat
from torch_aio.errors import CaptureError

aten = torch.ops.aten

# einsum is not kept: decomposed it is permutes, views and one bmm, which is what we have kernels
# for. batch_norm cannot be kept; it arrives as _native_batch_norm_legit_no_training.
KEPT: tuple[str, ...] = (
    "linear.default",
    "matmul.default",
    "scaled_dot_product_attention.default",
    "conv1d.default",
    "conv1d.padding",
    "conv2d.default",
    "conv2d.padding",
    "conv3d.default",
    "conv3d.padding",
    "conv_transpose1d.default",
    "conv_transpose2d.input",
    "conv_transpose3d.input",
    "layer_norm.default",
    "group_norm.default",
    "instance_norm.default",
    "rms_norm.default",
    "softmax.int",
    "log_softmax.int",
    "prelu.default",
    "max_pool1d.default",
    "max_pool2d.default",
    "max_pool3d.default",
    "avg_pool1d.default",
    "adaptive_avg_pool1d.default",
    "adaptive_avg_pool2d.default",
    "adaptive_avg_pool3d.default",
    "upsample_nearest1d.vec",
    "upsample_nearest2d.vec",
    "upsample_nearest3d.vec",
    *(f"_upsample_nearest_exact{n}d.vec" for n in (1, 2, 3)),
    "upsample_linear1d.vec",
    "upsample_bilinear2d.vec",
    "upsample_trilinear3d.vec",
    "upsample_bicubic2d.vec",
    "embedding_bag.default",
    "embedding_bag.padding_idx",
    "lstm.input",
    "gru.input",
    "_pad_circular.default",
)

# Operators of a module in training mode; random ones are known by their tag.
_TRAINING = frozenset({"_native_batch_norm_legit_functional", "_batch_norm_with_update_functional"})


class Refused(CaptureError):
    """By design not for the engine (random numbers, training): eager runs it."""


@dataclass
class Functional:
    """``module`` is the functional graph of a call; ``call`` is it behind AOT's wrappers.

    ``call`` runs whatever was given to ``bind``. ``plain`` says that the wrappers have nothing to
    do, so that the graph may be called with the same positional arguments directly.
    ``mutated`` and ``returned`` are positions of inputs that the call updates, or that an output
    is or aliases.
    """

    module: GraphModule
    call: Callable[..., Sequence[Any]]
    bind: Callable[[Callable[..., Sequence[Any]]], None]
    plain: bool
    mutated: frozenset[int]
    returned: frozenset[int]


def functional(
    gm: GraphModule, examples: Sequence[Any], fake_mode: Any | None = None
) -> Functional:
    """Trace ``gm(*examples)`` under no_grad into functional ATen.

    Raises Refused for graphs that eager should run and CaptureError for those that cannot be
    traced into the graph form. ``fake_mode``: of fake examples, outside of Dynamo.
    """
    grabbed: list[tuple[GraphModule, Any]] = []
    late = _Late()

    def grab(graph: GraphModule, _: Sequence[Any]) -> Callable[..., Any]:
        grabbed.append((graph, compat.TracingContext.get().fw_metadata))
        return late

    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        if fake_mode is not None:
            stack.enter_context(compat.tracing(compat.TracingContext(fake_mode)))
        stack.enter_context(keeping_composites())
        stack.enter_context(_no_autograd_cache())
        call = compat.aot_module_simplified(
            gm,
            examples,
            fw_compiler=_training_graph,
            inference_compiler=grab,
            keep_inference_input_mutations=True,
        )
    graph, metadata = grabbed[-1]
    _refuse_unsuitable(graph)
    return Functional(
        module=graph,
        call=call,
        bind=late.bind,
        plain=_wrappers_are_idle(gm, graph, metadata, len(examples)),
        mutated=frozenset(i for i, info in enumerate(metadata.input_info) if info.mutates_data),
        returned=frozenset(
            info.base_idx
            for info in metadata.output_info
            if info.output_type.name in ("alias_of_input", "is_input")
        ),
    )


@contextmanager
def keeping_composites() -> Iterator[None]:
    """Trace the operators of ``KEPT`` as one node each; one thread at a time (a global table)."""
    ops = [overload(name) for name in KEPT]
    kept = {op: _not_decomposed for op in ops if op is not None and compat.is_preservable(op)}
    with _keeping, compat.override_composites(kept):
        yield


def outputs_of(gm: GraphModule) -> tuple[Any, ...]:
    """The flat outputs of a graph, as its output node holds them."""
    flat: Any = gm.graph.output_node().args[0]
    return tuple(flat)


def overload(name: str) -> Any:
    """``torch.ops.aten.<name>`` for "linear.default", None where this PyTorch has none."""
    try:
        return operator.attrgetter(name)(aten)
    except AttributeError:
        return None


def _no_autograd_cache() -> AbstractContextManager[Any]:
    """Without what aot_compile sets: with it AOT insists on Inductor's output type."""
    names = ("force_autograd_cache", "bundled_autograd_cache", "strict_autograd_cache")
    flags = {name: False for name in names if hasattr(compat.functorch_config, name)}
    patch: AbstractContextManager[Any] = compat.functorch_config.patch(**flags)
    return patch


_keeping = threading.RLock()


def _not_decomposed(*_: Any, **__: Any) -> Any:
    return NotImplemented


def _training_graph(*_: Any) -> Any:
    raise CaptureError("the graph records gradients even under no_grad")


class _Late:
    """A callable whose body is supplied after the trace that returns it."""

    def __init__(self) -> None:
        self._run: Callable[..., Sequence[Any]] | None = None

    def bind(self, run: Callable[..., Sequence[Any]]) -> None:
        self._run = run

    def __call__(self, *args: Any) -> Sequence[Any]:
        if self._run is None:
            raise CaptureError("called before it was compiled")
        return self._run(*args)


def _refuse_unsuitable(graph: GraphModule) -> None:
    for node in graph.graph.nodes:
        if node.op != "call_function":
            continue
        if isinstance(node.target, compat.HigherOrderOperator):
            raise Refused(f"the higher-order operator {node.target} is left to PyTorch")
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        if torch.Tag.nondeterministic_seeded in node.target.tags and _draws(node):
            raise Refused(f"{node.target} draws random numbers (dropout in training mode?)")
        if node.target.overloadpacket.__name__ in _TRAINING:
            raise Refused("batch norm is in training mode")


def _draws(node: torch.fx.Node) -> bool:
    """Whether an operator that can draw random numbers does: attention and LSTM may be told 0."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    given = {a.name: a.default_value for a in schema}
    given |= dict(zip((a.name for a in schema), node.args, strict=False)) | node.kwargs
    dropout = given.get("dropout_p", given.get("dropout"))
    return dropout != 0 and given.get("train") is not False


def _wrappers_are_idle(gm: GraphModule, graph: GraphModule, metadata: Any, arguments: int) -> bool:
    """Whether AOT's wrappers would hand arguments and results through untouched.

    They have work where inputs overlap (fewer or other placeholders), where an input's metadata or
    an input that requires grad changes outside the graph (more outputs), where effect tokens are
    threaded, and where an output aliases an input of a call that updates inputs.
    """
    inputs = metadata.input_info
    aliases = any(o.output_type.name == "alias_of_input" for o in metadata.output_info)
    return (
        len(graph.graph.find_nodes(op="placeholder")) == arguments
        and len(outputs_of(graph)) == len(outputs_of(gm))
        and not any(info.mutates_metadata for info in inputs)
        and not metadata.tokens
        and not (aliases and any(info.mutates_data for info in inputs))
    )
