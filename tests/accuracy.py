"""How near to fp64 an answer is: the measure every numeric test uses.

error = max|y - ref| / max|ref| over the finite elements. Ours may be twice eager's, or 8 eps of the
dtype where that is more; NaN and infinities must stand where eager has them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree


def error(y: torch.Tensor, ref64: torch.Tensor) -> float:
    """max|y - ref| / max|ref| over the elements that are finite in the reference."""
    y, ref64 = y.detach().double(), ref64.detach().double()
    finite = torch.isfinite(ref64)
    if not finite.any():
        return 0.0
    difference = (y[finite] - ref64[finite]).abs().max().item()
    scale = ref64[finite].abs().max().item()
    return difference / scale if scale else difference


def bound(eager_error: float, dtype: torch.dtype) -> float:
    """The error that is allowed: max(2 x eager's, 8 eps)."""
    return max(2 * eager_error, 8 * torch.finfo(dtype).eps)


def reference(model: Any, *inputs: Any) -> Any:
    """What the model answers in fp64: a copy of it on double inputs."""
    doubled = copy.deepcopy(model).double() if isinstance(model, torch.nn.Module) else model
    with torch.no_grad():
        return doubled(*pytree.tree_map(widened, inputs))


def widened(value: Any) -> Any:
    """A floating tensor in fp64, anything else as it is."""
    is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.double() if is_float else value


def assert_close(y: Any, ref64: Any, eager: Any, what: str = "") -> None:
    """``y`` is as near to ``ref64`` as the bound says, for each tensor of the (nested) answers.

    Shape and dtype must be eager's; integers and booleans must be equal.
    """
    ours, references, plain = (pytree.tree_leaves(value) for value in (y, ref64, eager))
    assert len(ours) == len(plain) == len(references), f"{what}: number of answers"
    for n, (one, ref, own) in enumerate(zip(ours, references, plain, strict=True)):
        where = f"{what}[{n}]" if len(ours) > 1 else what
        if isinstance(own, torch.Tensor):
            _assert_tensor(one, ref, own, where)
        else:
            assert one == own, f"{where}: {one!r}, not {own!r}"


def _assert_tensor(y: torch.Tensor, ref: torch.Tensor, eager: torch.Tensor, what: str) -> None:
    assert y.shape == eager.shape, f"{what}: shape {tuple(y.shape)}, not {tuple(eager.shape)}"
    assert y.dtype == eager.dtype, f"{what}: {y.dtype}, not {eager.dtype}"
    if not eager.is_floating_point():
        assert torch.equal(y, eager), f"{what}: integers differ"
        return
    _assert_special(y, eager, what)
    finite = torch.isfinite(eager)  # what overflowed in eager is not compared with fp64
    ours, allowed = error(y[finite], ref[finite]), bound(error(eager[finite], ref[finite]), y.dtype)
    assert ours <= allowed, f"{what}: error {ours:.2e}, allowed {allowed:.2e}"


def _assert_special(y: torch.Tensor, eager: torch.Tensor, what: str) -> None:
    assert torch.equal(y.isnan(), eager.isnan()), f"{what}: NaN elsewhere than eager"
    for infinity in (float("inf"), float("-inf")):
        assert torch.equal(y == infinity, eager == infinity), f"{what}: {infinity} elsewhere"


def run(model: Any, inputs: Sequence[Any]) -> Any:
    """Eager's answer without gradients."""
    with torch.no_grad():
        return model(*inputs)
