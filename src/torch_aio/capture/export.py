"""The export front door: ``torch_aio.compile(program_or_module, example_inputs)``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import torch
from torch.export import ExportedProgram

from torch_aio import banner, config, log
from torch_aio.capture.aten import Refused, functional
from torch_aio.capture.entrance import Entrance
from torch_aio.capture.exported import Lifted, Result
from torch_aio.capture.form import into_form
from torch_aio.capture.gradient import Modes, Run, guarded
from torch_aio.engine.captured import Captured
from torch_aio.engine.compiled import compile_graph
from torch_aio.errors import ConfigError, InputError


def compile(  # noqa: A001 - torch_aio.compile, like torch.compile
    target: ExportedProgram | torch.nn.Module,
    example_inputs: Sequence[Any] | torch.Tensor = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    options: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """Compile an exported program, or a module at example inputs, into a plain callable.

    It has no guards but a check of each tensor's dtype, rank and sizes (InputError names the
    argument): Python values and branches are those of the examples. Sizes vary where
    ``dynamic_shapes`` (as for torch.export.export) says so. A module's parameters and buffers
    stay live: changed, replaced or updated ones are honoured, buffers are written back.

    Raises InputError where ``example_inputs`` and ``kwargs`` are no arguments of the module's.
    Where the engine cannot take it, the answer is PyTorch's own module, with a warning; option
    ``strict`` (``AIO_STRICT=1``) raises instead.
    """
    wanted = config.Options.from_mapping(options)
    if not config.read().process_mode:
        return _plain(target)
    banner.at_first_compile()
    name = f"{type(target).__name__}.forward"
    try:
        program = _exported(target, example_inputs, kwargs, dynamic_shapes)
        owner = target if isinstance(target, torch.nn.Module) else None
        return CompiledProgram(program, owner, name, wanted)
    except (ConfigError, InputError):
        raise
    except Refused as refusal:
        log.notice_once(f"refused {name} {refusal}", f"{name} runs in plain PyTorch: {refusal}")
    except Exception as error:
        if wanted.strict:
            raise
        log.warning("%s runs in plain PyTorch: %s: %s", name, type(error).__name__, error)
    return _plain(target)


class CompiledProgram:
    """A compiled program; call it like the module it was exported from.

    ``module`` holds the live parameters and buffers, ``captured`` the graph.
    """

    def __init__(
        self,
        program: ExportedProgram,
        owner: torch.nn.Module | None,
        name: str,
        options: config.Options,
    ) -> None:
        begin = perf_counter()
        self._unlifted = program.module()
        self.module = self._unlifted if owner is None else owner
        self._ranges = {str(s): r for s, r in program.range_constraints.items()}
        lifted = Lifted(program, self._unlifted)
        traced = functional(lifted.module, lifted.examples, lifted.fake_mode)
        first = len(lifted.roots) + lifted.passed
        weights = {
            first + i: (target, lifted.weights[target])
            for i, target in enumerate(lifted.weights)
            if first + i not in traced.mutated | traced.returned
        }
        graph, live, arguments = into_form(traced.module, weights)
        eager = lifted.module.forward
        seconds = perf_counter() - begin
        self.captured = Captured(graph, arguments, eager, name, "export", live, seconds)
        run: Run = compile_graph(self.captured, options)
        if not traced.plain:
            traced.bind(run)
            run = traced.call
        tensors = [i for i, e in enumerate(lifted.examples) if isinstance(e, torch.Tensor)]
        self._run = guarded(run, eager, tensors, Modes(), pure=not traced.mutated, name=name)
        self._eager: Run = eager
        self._lifted = lifted
        self._updated = [p - first for p in sorted(traced.mutated) if p >= first]
        self._signature = lifted.signature(traced.mutated | traced.returned)
        self._result = Result(self._unlifted, program)
        self._admitted: set[tuple[int, ...]] = set()
        self._owned: set[str] = set()
        self._renew()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it; InputError for arguments that do not fit."""
        return self._enter(*args, **kwargs)

    def __repr__(self) -> str:
        """Name it and its arguments."""
        return f"<torch_aio program {self.captured.name}({', '.join(self._signature.names)})>"

    def _renew(self) -> Callable[..., Any]:
        """Bind the weights of the module tree as it is now."""
        modules: dict[int, tuple[dict[str, Any], str, Any]] = {}
        weights = [self._locate(target, modules) for target in self._lifted.weights]
        self._enter = Entrance(
            signature=self._signature,
            roots=self._lifted.roots,
            weights=weights,
            modules=list(modules.values()),
            updated=self._updated,
            result=self._result.source,
            namespace={
                "run": self._run,
                "eager": self._eager,
                "flatten": self._signature.flatten,
                "reject": self._signature.reject,
                "admitted": self._admitted,
                "admit": self._admit,
                "renew": self._renew,
                "unflatten": self._result.unflatten,
            },
        ).build()
        return self._enter

    def _locate(
        self, target: str, modules: dict[int, tuple[dict[str, Any], str, Any]]
    ) -> tuple[dict[str, Any], str]:
        """The dict that holds a weight; the modules passed on the way there go to ``modules``."""
        *path, key = target.split(".")
        for root in (self.module,) if target in self._owned else (self.module, self._unlifted):
            module: Any = root
            way = []
            for part in path:
                children = module._modules
                if part not in children:
                    break
                module = children[part]
                way.append((children, part, module))
            else:
                for members in (module._parameters, module._buffers, module.__dict__):
                    if isinstance(members.get(key), torch.Tensor):
                        modules.update({id(step[2]): step for step in way})
                        if root is self.module:
                            self._owned.add(target)
                        return members, key
        raise InputError(f"the module has no {target} any more: compile it again")

    def _admit(self, leaves: Sequence[Any], sizes: tuple[int, ...]) -> None:
        """Check sizes not seen before against the program's own conditions."""
        for (name, root), size in zip(self._lifted.roots.items(), sizes, strict=True):
            allowed = self._ranges.get(name)
            if allowed is not None and not allowed.lower <= size <= allowed.upper:
                leaf = self._signature.leaves[root.leaf]
                raise InputError(
                    f"argument {leaf.name}: size {size} of dimension {root.dimension} is not "
                    f"within {allowed.lower} to {allowed.upper}, for which it was exported"
                )
        guards = getattr(self._unlifted, "_guards_fn", None)
        if guards is not None:
            try:
                guards(*leaves)
            except AssertionError as error:
                raise InputError(f"the sizes do not fit: {error}") from None
        if len(self._admitted) >= 4096:
            self._admitted.clear()
        self._admitted.add(sizes)


def _exported(
    target: ExportedProgram | torch.nn.Module,
    example_inputs: Sequence[Any] | torch.Tensor,
    kwargs: Mapping[str, Any] | None,
    dynamic_shapes: Any,
) -> ExportedProgram:
    if isinstance(target, ExportedProgram):
        return target
    if not isinstance(target, torch.nn.Module):
        raise TypeError(f"expected an ExportedProgram or a Module, got {type(target).__name__}")
    args = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else tuple(example_inputs)
    try:
        inspect.signature(target.forward).bind(*args, **(kwargs or {}))
    except TypeError as error:
        raise InputError(
            f"the example inputs do not fit {type(target).__name__}.forward: {error}; "
            "compile(model, (x, y)) takes the arguments of a call"
        ) from None
    # With gradients enabled, or a model's own no_grad blocks would be missing from the program.
    with torch.enable_grad():
        return torch.export.export(
            target, args, dict(kwargs or {}), dynamic_shapes=dynamic_shapes, strict=False
        )


def _plain(target: ExportedProgram | torch.nn.Module) -> Callable[..., Any]:
    return target.module() if isinstance(target, ExportedProgram) else target
