"""Calls in which a gradient could be asked for: answer and gradient are eager's.

The engine only infers. ``guarded`` is what every front door hands out: it runs the engine where no
gradient can be asked for, and otherwise either eager, or the engine inside an autograd.Function
whose backward runs eager again (until a backward shows that this is training: from then on eager).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from torch_aio import log, switch
from torch_aio.capture import compat

Run = Callable[..., Sequence[Any]]
Flags = tuple[bool, ...]


@dataclass(frozen=True)
class Modes:
    """What a graph does with the grad mode.

    ``records[mode]``: whether operators run with gradients recorded if the call is entered with
    that mode. ``uniform``: the graph never switches it. ``final``: the mode it leaves, None for
    the one it found.
    """

    records: tuple[bool, bool] = (False, True)
    uniform: bool = True
    final: bool | None = None


def without_modes(gm: fx.GraphModule) -> tuple[fx.GraphModule, Modes]:
    """``gm`` without the nodes that switch the grad mode (a copy if there are any), and its modes.

    An example::

        _set_grad_enabled(False); y = x * 2; _set_grad_enabled(True)   ->   y = x * 2
    """
    if not any(_is_switch(node) for node in gm.graph.nodes):
        return gm, Modes()
    records = (_records(gm, entered=False), _records(gm, entered=True))
    final = [node.args[0] for node in gm.graph.nodes if node.target is compat.set_grad_enabled]
    plain = copied(gm)
    for node in reversed(plain.graph.nodes):
        if _is_switch(node):
            plain.graph.erase_node(node)
    plain.recompile()
    return plain, Modes(records, uniform=False, final=bool(final[-1]) if final else None)


def copied(gm: fx.GraphModule) -> fx.GraphModule:
    """A module of the same attributes with a copy of the graph."""
    graph = fx.Graph()
    output = graph.graph_copy(gm.graph, val_map={})
    graph.output(output)
    return fx.GraphModule(gm, graph)


def guarded(
    run: Run, eager: Run, tensors: Sequence[int], modes: Modes, *, pure: bool, name: str
) -> Run:
    """The flat call that decides between the engine (``run``) and ``eager``.

    ``tensors`` are the positions of tensor arguments; ``pure`` says that no input is updated.
    """
    differentiable = _Differentiable(run, eager, tensors, pure and modes.uniform, name)
    final = modes.final
    records_off, records_on = modes.records
    grad_enabled, set_grad_enabled = torch.is_grad_enabled, torch._C._set_grad_enabled

    def call(*args: Any) -> Sequence[Any]:
        if not switch.on:
            return eager(*args)
        entered = grad_enabled()
        if records_on if entered else records_off:
            flags = tuple([args[i].requires_grad for i in tensors])
            if True in flags:
                return differentiable(args, flags)
        if not entered and final is None:
            return run(*args)
        set_grad_enabled(False)
        try:
            return run(*args)
        finally:
            set_grad_enabled(entered if final is None else final)

    return call


@dataclass
class _Differentiable:
    """Calls with gradients. The first of each kind is eager's and shows what is differentiable."""

    run: Run
    eager: Run
    tensors: Sequence[int]
    allowed: bool
    name: str
    differentiable: dict[Flags, tuple[bool, ...] | None] = field(default_factory=dict)
    trains: bool = False

    def __call__(self, args: tuple[Any, ...], flags: Flags) -> Sequence[Any]:
        if not self.allowed or self.trains:
            return self._eagerly(args)
        if flags not in self.differentiable:
            outputs = self.eager(*args)
            self.differentiable[flags] = _differentiable_outputs(outputs, args)
            return outputs
        outputs_differentiable = self.differentiable[flags]
        if outputs_differentiable is None:
            return self._eagerly(args)
        if True not in outputs_differentiable:
            with torch.no_grad():
                return self.run(*args)
        answer: Sequence[Any] = _Recompute.apply(self, outputs_differentiable, *args)
        return answer

    def _eagerly(self, args: tuple[Any, ...]) -> Sequence[Any]:
        log.notice_once(
            f"gradient {self.name}",
            f"{self.name}: gradients are recorded, so it runs in plain PyTorch; "
            "call it under torch.no_grad() or torch.inference_mode() to use the engine",
        )
        return self.eager(*args)


class _Recompute(torch.autograd.Function):
    """The engine forward; backward runs eager under enable_grad and differentiates that."""

    @staticmethod
    def forward(
        ctx: Any, call: _Differentiable, differentiable: tuple[bool, ...], *args: Any
    ) -> tuple[Any, ...]:
        ctx.call = call
        ctx.others = [None if isinstance(a, torch.Tensor) else a for a in args]
        ctx.save_for_backward(*(a for a in args if isinstance(a, torch.Tensor)))
        ctx.set_materialize_grads(False)
        outputs = tuple(call.run(*args))
        ctx.mark_non_differentiable(
            *(
                o
                for o, d in zip(outputs, differentiable, strict=True)
                if isinstance(o, torch.Tensor) and not d
            )
        )
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[Any, ...]:
        ctx.call.trains = True
        saved = iter(ctx.saved_tensors)
        again = torch.is_grad_enabled()  # create_graph=True
        wanted = ctx.needs_input_grad[2:]
        with torch.enable_grad():
            args = list(_fresh(ctx.others, saved, wanted))
            outputs = ctx.call.eager(*args)
        pairs = [
            (o, g)
            for o, g in zip(outputs, gradients, strict=True)
            if g is not None and isinstance(o, torch.Tensor) and o.requires_grad
        ]
        found = iter(
            torch.autograd.grad(
                [o for o, _ in pairs],
                [a for a, w in zip(args, wanted, strict=True) if w],
                [g for _, g in pairs],
                create_graph=again,
                allow_unused=True,
            )
            if pairs
            else ()
        )
        return (None, None, *(next(found, None) if w else None for w in wanted))


def _fresh(
    others: Sequence[Any], saved: Iterator[torch.Tensor], wanted: Sequence[bool]
) -> Iterator[Any]:
    """The call's arguments; a wanted one as a view, so that paths between inputs do not count."""
    for other, want in zip(others, wanted, strict=True):
        if other is not None:
            yield other
        else:
            tensor = next(saved, None)
            yield tensor.view_as(tensor) if want and tensor is not None else tensor


def _differentiable_outputs(outputs: Sequence[Any], args: Sequence[Any]) -> tuple[bool, ...] | None:
    """Which outputs require grad; None where outputs share memory with inputs or each other."""
    seen = {_memory(a) for a in args if isinstance(a, torch.Tensor)}
    for output in outputs:
        if isinstance(output, torch.Tensor):
            if _memory(output) in seen:
                return None
            seen.add(_memory(output))
    return tuple(isinstance(o, torch.Tensor) and o.requires_grad for o in outputs)


def _memory(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _is_switch(node: fx.Node) -> bool:
    return node.op == "call_function" and node.target in (
        compat.set_grad_enabled,
        compat.enter_inference_mode,
        compat.exit_inference_mode,
    )


def _records(gm: fx.GraphModule, *, entered: bool) -> bool:
    """Whether any operator runs with gradients recorded, if entered in that mode."""
    mode, inference = entered, 0
    for node in gm.graph.nodes:
        if node.op == "call_function" and _is_switch(node):
            if node.target is compat.set_grad_enabled:
                mode = bool(node.args[0])
            else:
                inference += 1 if node.target is compat.enter_inference_mode else -1
        elif node.op.startswith("call_") and mode and not inference:
            return True
    return False
