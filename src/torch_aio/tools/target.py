"""Models for the command line: a function that returns a model and its inputs."""

from __future__ import annotations

import importlib
import runpy
from collections.abc import Callable
from typing import Any

import torch

from torch_aio.errors import InputError


def load(target: str) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The model and inputs of ``FILE.py:FUNCTION`` or ``MODULE:FUNCTION``.

    The function takes nothing and returns (model, inputs), inputs a tensor or a tuple. Modules are
    put into eval mode. Raises InputError where there is none.
    """
    place, _, name = target.rpartition(":")
    if not place:
        raise InputError(f"{target!r} is not FILE.py:FUNCTION or MODULE:FUNCTION")
    try:
        is_file = place.endswith(".py")
        names = runpy.run_path(place) if is_file else vars(importlib.import_module(place))
    except (OSError, ImportError) as error:
        raise InputError(f"{target!r}: {error}") from error
    if not callable(names.get(name)):
        raise InputError(f"{place} has no function {name!r}")
    model, inputs = names[name]()
    if isinstance(model, torch.nn.Module):
        model.eval()
    return model, inputs if isinstance(inputs, tuple) else (inputs,)
