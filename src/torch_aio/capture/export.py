"""The export front door: ``torch_aio.compile(program_or_module, example_inputs)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from torch_aio import banner, config, log
from torch_aio.capture import compat
from torch_aio.capture.aten import Refused, functional
from torch_aio.capture.entrance import Entrance
from torch_aio.capture.form import into_form
from torch_aio.capture.gradient import Modes, Run, guarded
from torch_aio.capture.signature import Leaf, Root, Signature, roots_of
from torch_aio.capture.specs import spec_of
from torch_aio.engine.captured import Captured
from torch_aio.engine.compiled import compile_graph
from torch_aio.errors import ConfigError, InputError
from torch_aio.ir.spec import TensorSpec


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
    except ConfigError:
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
        self._unlifted = program.module()
        self.module = self._unlifted if owner is None else owner
        self._ranges = {str(s): r for s, r in program.range_constraints.items()}
        lifted = _Lifted(program, self._unlifted)
        traced = functional(lifted.module, lifted.examples, lifted.fake_mode)
        first = len(lifted.roots) + lifted.passed
        weights = {
            first + i: (target, lifted.weights[target])
            for i, target in enumerate(lifted.weights)
            if first + i not in traced.mutated | traced.returned
        }
        graph, live, arguments = into_form(traced.module, weights)
        eager = lifted.module.forward
        self.captured = Captured(graph, arguments, eager, name, "export", live)
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
        self._result = _Result(self._unlifted, program)
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


class _Lifted:
    """An exported program's graph with symbols, inputs and weights as positional arguments.

    That is::

        l_weight = get_attr["l.weight"]; x = placeholder   ->   s77, x, l_weight = placeholders

    ``module`` runs in plain PyTorch, gradients included; ``examples`` are its fake arguments.
    """

    def __init__(self, program: ExportedProgram, unlifted: fx.GraphModule) -> None:
        self._structure = program.call_spec.in_spec
        self._info = getattr(unlifted.graph._codegen, "pytree_info", None)
        inputs = unlifted.graph.find_nodes(op="placeholder")
        values = [node.meta.get("val") for node in inputs]
        self._leaves = [Leaf(node.name, spec_of(v)) for node, v in zip(inputs, values, strict=True)]
        self.roots: dict[str, Root] = roots_of(self._leaves)
        self.fake_mode = compat.detect_fake_mode(values) or compat.FakeTensorMode()
        self.weights: dict[str, torch.Tensor] = {}
        self.passed = sum(isinstance(leaf.value, TensorSpec) for leaf in self._leaves)
        self.module = self._lift(unlifted, inputs)
        self.examples = [
            *(self._symbol(root, values) for root in self.roots.values()),
            *(value for value in values if isinstance(value, torch.Tensor)),
            *(self.fake_mode.from_tensor(w, static_shapes=True) for w in self.weights.values()),
        ]

    def _lift(self, unlifted: fx.GraphModule, inputs: Sequence[fx.Node]) -> fx.GraphModule:
        graph = fx.Graph()
        symbols = {name: graph.placeholder(name) for name in self.roots}
        env: dict[fx.Node, Any] = {}
        for node, leaf in zip(inputs, self._leaves, strict=True):
            if isinstance(leaf.value, TensorSpec):
                env[node] = graph.node_copy(node)
                env[node].args = ()  # an exported default value is not one here
            else:
                env[node] = symbols.get(str(leaf.value), leaf.value)
        self._lift_weights(unlifted, graph, env)
        for node in unlifted.graph.nodes:
            if node in env or (node.op == "call_module" and node.target == "_guards_fn"):
                continue
            if node.op == "output":
                flat = [n for n in pytree.tree_leaves(node.args[0]) if isinstance(n, fx.Node)]
                graph.output(tuple(env[n] for n in flat))
            else:
                env[node] = graph.node_copy(node, env.__getitem__)
        return fx.GraphModule(unlifted, graph)

    def _lift_weights(
        self, unlifted: fx.GraphModule, graph: fx.Graph, env: dict[fx.Node, Any]
    ) -> None:
        lifted: dict[int, fx.Node] = {}
        for node in unlifted.graph.find_nodes(op="get_attr"):
            value: Any = unlifted
            for part in str(node.target).split("."):
                value = getattr(value, part)
            if isinstance(value, torch.Tensor):
                if id(value) not in lifted:
                    lifted[id(value)] = graph.placeholder(node.name)
                    self.weights[str(node.target)] = value
                env[node] = lifted[id(value)]

    @staticmethod
    def _symbol(root: Root, values: Sequence[Any]) -> Any:
        value = values[root.leaf]
        size = value if root.dimension is None else value.shape[root.dimension]
        return size if root.plain else (size - root.addend) // root.factor

    def signature(self, pinned: frozenset[int]) -> Signature:
        """The program's arguments; ``pinned`` are positions that a call updates or returns."""
        positional, keyword = compat.children_of(self._structure)
        structures = [*compat.children_of(positional), *compat.children_of(keyword)]
        names = [f"argument {i}" for i in range(positional.num_children)] + list(keyword.context)
        if self._info is not None and len(self._info.orig_args) == len(names):
            names[: positional.num_children] = self._info.orig_args[: positional.num_children]
        leaves: list[Leaf] = []
        position = len(self.roots)
        for name, structure in zip(names, structures, strict=True):
            paths = _paths(structure)
            for path in paths:
                value = self._leaves[len(leaves)].value
                leaves.append(Leaf(name + path, value, position in pinned and _tensor(value)))
                position += _tensor(value)
        return Signature(tuple(names), positional.num_children, tuple(structures), tuple(leaves))


class _Result:
    """From the flat outputs of the graph to the answer: constants put back, structure restored."""

    def __init__(self, unlifted: fx.GraphModule, program: ExportedProgram) -> None:
        (flat,) = unlifted.graph.output_node().args
        self._leaves = pytree.tree_leaves(flat)
        self._structure = program.call_spec.out_spec
        self._constant = any(not isinstance(leaf, fx.Node) for leaf in self._leaves)

    @property
    def source(self) -> str:
        """The answer as an expression over ``outputs``."""
        if self._constant:
            return "unflatten(outputs)"
        if self._structure.is_leaf():
            return "outputs[0]"
        if self._structure.type is tuple and all(
            c.is_leaf() for c in compat.children_of(self._structure)
        ):
            return "tuple(outputs)"
        return "unflatten(outputs)"

    def unflatten(self, outputs: Sequence[Any]) -> Any:
        """The answer."""
        found = iter(outputs)
        leaves = [next(found) if isinstance(leaf, fx.Node) else leaf for leaf in self._leaves]
        return pytree.tree_unflatten(leaves, self._structure)


def _tensor(value: Any) -> bool:
    return isinstance(value, TensorSpec)


def _paths(structure: pytree.TreeSpec) -> list[str]:
    """The path of each leaf, as Python: ``['mask'][0]``."""
    skeleton = pytree.tree_unflatten(list(range(structure.num_leaves)), structure)
    return [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(skeleton)[0]]


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
    # With gradients enabled, or a model's own no_grad blocks would be missing from the program.
    with torch.enable_grad():
        return torch.export.export(
            target, args, dict(kwargs or {}), dynamic_shapes=dynamic_shapes, strict=False
        )


def _plain(target: ExportedProgram | torch.nn.Module) -> Callable[..., Any]:
    return target.module() if isinstance(target, ExportedProgram) else target
