"""The callable that stands in for one method of a frozen TorchScript module.

It runs the method's calls on the engine and hands over to the original ``ScriptMethod`` where it
must: under a tracer, a dispatch or function mode, autocast, functorch or Dynamo; where a gradient
could be asked for; for arguments that are no plain CPU tensors; where the method raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from torch_aio import config, log, switch
from torch_aio.capture.ts_call import check, converter, key_of
from torch_aio.capture.ts_capture import Entry, Source
from torch_aio.capture.ts_segments import Segmented
from torch_aio.capture.ts_specialize import Specializer, sizes
from torch_aio.capture.ts_values import DataDependent, Handover
from torch_aio.errors import ReleasedError

_MISSING: Any = object()
NO_SIZES: dict[str, int] = {}
_tracing = torch._C._get_tracing_state
_dispatch_modes = torch._C._len_torch_dispatch_stack
_function_modes = torch._C._len_torch_function_stack
_functorch = torch._C._functorch.peek_interpreter_stack
_autocast = partial(torch.is_autocast_enabled, "cpu")
_grad = torch.is_grad_enabled


def elsewhere() -> bool:
    """Whether somebody watches or changes what operators do, so that the original must run."""
    return (
        not switch.on
        or _tracing() is not None
        or _dispatch_modes() > 0
        or _function_modes() > 0
        or _functorch() is not None
        or _autocast()
        or torch.compiler.is_dynamo_compiling()
    )


class Runner:
    """Calls of ``method`` on the engine; every other attribute is the ScriptMethod's own."""

    def __init__(self, module: Any, method: str) -> None:
        self._module = module
        self._name = method
        self._original = module._get_method(method)
        self._parameters = self._original.schema.arguments[1:]
        self._convert = [
            None if p.type.kind() == "TensorType" else converter(p.type) for p in self._parameters
        ]
        self._arity = len(self._parameters)
        self._snapshot: Any = None
        self._specializer: Specializer | None = None
        self._owners: list[tuple[Any, str]] = []
        self._call: Callable[..., Any] = self._run

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") and not name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._original, name)

    def __repr__(self) -> str:
        return repr(self._original)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - the method's own call
        if elsewhere():
            return self._original(*args, **kwargs)
        if kwargs or len(args) != self._arity:
            bound = self._bind(args, kwargs)
            if bound is None:
                return self._original(*args, **kwargs)
            args = bound
        return self._call(*args)

    @property
    def captures(self) -> int:
        """How many graphs were captured so far."""
        return 0 if self._specializer is None else self._specializer.captures

    @property
    def forms(self) -> list[torch.fx.GraphModule]:
        """The captured graphs, oldest first."""
        found = {} if self._specializer is None else self._specializer.entries
        return list(dict.fromkeys(entry.module for entry in found.values() if entry is not None))

    def keep_graph(self) -> None:
        """Compile from the graph as it is now, whatever passes change in it later."""
        if self._specializer is None and self._snapshot is None:
            self._snapshot = self._original.graph.copy()

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
        """All arguments in order; None where TorchScript should say what is wrong with them."""
        rest = dict(kwargs)
        bound = list(args)
        for parameter in self._parameters[len(args) :]:
            if parameter.name in rest:
                bound.append(rest.pop(parameter.name))
            elif parameter.has_default_value():
                bound.append(parameter.default_value)
            else:
                return None
        return None if rest or len(bound) != self._arity else tuple(bound)

    def _run(self, *args: Any) -> Any:
        tensors: list[torch.Tensor] = []
        try:
            key, attributes, args = self._describe(args, tensors)
        except Handover:
            return self._original(*args)
        if _grad() and any(t.requires_grad for t in tensors):
            return self._original(*args)
        specializer = self._specializer
        entry = _MISSING if specializer is None else specializer.entries.get(key, _MISSING)
        try:
            if entry is _MISSING:
                entry = self._compile(key, args, attributes)
            if entry is None or (entry.updates and _overlap(tensors)):
                return self._original(*args)
            outputs = entry.run(*tensors)
            env = NO_SIZES if entry.symbols is None else sizes(entry.symbols, (args, attributes))
            for path, value in entry.writes:
                owner, name = self._owner(path)
                owner.setattr(name, value(outputs, env))
            return entry.result(outputs, env)
        except DataDependent as reason:
            return self._in_segments(reason, args)
        except ReleasedError:
            raise
        except Exception as error:
            return self._failed(error, args)

    def _describe(
        self, args: tuple[Any, ...], tensors: list[torch.Tensor]
    ) -> tuple[Any, list[Any], tuple[Any, ...]]:
        key = []
        for x, convert in zip(args, self._convert, strict=True):
            if convert is None:
                if not isinstance(x, torch.Tensor):
                    raise Handover("a tensor is expected")
                tensors.append(check(x))
                key.append((x.dtype, x.shape, x.stride()))
            else:
                key.append(key_of(convert(x), tensors))
        if self._specializer is None:
            self._prepare()
        attributes = [owner.getattr(name) for owner, name in self._owners]
        key.extend(key_of(value, tensors) for value in attributes)
        if None not in self._convert:
            args = tuple(c(x) for c, x in zip(self._convert, args, strict=True) if c is not None)
        return tuple(key), attributes, args

    def _prepare(self) -> None:
        """Read the graph: late, because freezing still folds after the module exists."""
        original = self._snapshot if self._snapshot is not None else self._original.graph
        graph = original.copy()
        torch._C._jit_pass_inline(graph)
        torch._C._jit_pass_remove_mutation(graph)
        reads = tuple(attribute_reads(graph, self._module))
        self._owners = [self._owner(path) for path in reads]
        name = f"{_class_name(self._module)}.{self._name}"
        written = {node.s("name") for node in graph.findAllNodes("prim::SetAttr")}
        weights = frozenset(
            path
            for path, (owner, attribute) in zip(reads, self._owners, strict=True)
            if attribute not in written and attribute in _parameters(owner)
        )
        self._specializer = Specializer(Source(graph, name, True, reads, weights))

    def _owner(self, path: str) -> tuple[Any, str]:
        *modules, name = path.split(".")
        owner = self._module
        for module in modules:
            owner = owner.getattr(module)
        return owner, name

    def _compile(self, key: Any, args: tuple[Any, ...], attributes: Sequence[Any]) -> Entry | None:
        assert self._specializer is not None
        values = [c(x) if c is not None else x for c, x in zip(self._convert, args, strict=True)]
        return self._specializer.add(key, (values, list(attributes)))

    def _in_segments(self, reason: DataDependent, args: tuple[Any, ...]) -> Any:
        """Values decide what is computed: run straight-line stretches on the engine instead."""
        log.debug("%s is compiled in segments: %s", self._name, reason)
        assert self._specializer is not None
        try:
            segmented = Segmented(self._specializer.source, self._module)
        except Exception as error:
            return self._failed(error, args)
        log.debug("%s: %d segments", self._name, len(segmented.segments))
        self._call = segmented if segmented.segments else self._original
        return self._call(*args)

    def _failed(self, error: Exception, args: tuple[Any, ...]) -> Any:
        """PyTorch's answer (or its error), a warning, and the original method from now on."""
        answer = self._original(*args)
        if config.read().strict:
            raise error
        self._call = self._original
        log.warning(
            "%s.%s runs in TorchScript from now on: %s: %s",
            _class_name(self._module),
            self._name,
            type(error).__name__,
            error,
        )
        return answer


def attribute_reads(graph: Any, module: Any) -> list[str]:
    """Paths (from ``self``) of the attributes that a graph reads, submodules aside."""
    paths: dict[str, None] = {}
    modules = {next(iter(graph.inputs())).debugName(): ("", module)}
    for node in graph.findAllNodes("prim::GetAttr"):
        known = modules.get(next(iter(node.inputs())).debugName())
        if known is None:
            raise DataDependent("an attribute of an object that is no module")
        path = f"{known[0]}.{node.s('name')}" if known[0] else node.s("name")
        value = known[1].getattr(node.s("name"))
        if isinstance(value, torch._C.ScriptModule):
            modules[node.output().debugName()] = (path, value)
        else:
            paths[path] = None
    return list(paths)


def _parameters(module: Any) -> set[str]:
    held: Any = torch._C.ParameterDict(module)
    return {name for name, _ in held.items()}


def _class_name(module: Any) -> str:
    return str(module._type().name()).rpartition(".")[2]


def _overlap(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether two arguments share memory: updates of one would have to show in the other."""
    storages = [t.untyped_storage()._cdata for t in tensors]
    return len(set(storages)) < len(storages)
