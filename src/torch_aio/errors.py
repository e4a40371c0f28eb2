"""The exceptions of torch-aio.

    AioError
    +-- ConfigError         a variable or option has a value that cannot be used
    +-- CaptureError        a model could not be turned into a graph
    +-- InputError          a call's arguments do not fit what was compiled
    +-- CompileError        a graph could not be compiled; names the node
    |   +-- KernelError     a kernel could not be generated or compiled
    +-- ReleasedError       needs original weights that `release_weights` gave back
    +-- CacheError          the on-disk cache cannot be used

Unless `AIO_STRICT=1`, all but ConfigError and InputError end in a warning and PyTorch's own answer.
"""

from __future__ import annotations


class AioError(Exception):
    """The base of every exception torch-aio raises on purpose."""


class ConfigError(AioError, ValueError):
    """A variable or option has a value that cannot be used; says which would be valid."""


class CaptureError(AioError, RuntimeError):
    """A model could not be turned into a graph."""


class InputError(AioError, ValueError):
    """A call's arguments do not fit what was compiled (type, rank, size)."""


class CompileError(AioError, RuntimeError):
    """A graph could not be compiled.

    ``node`` names the operation, with the user's source line where it is known.
    """

    def __init__(self, message: str, node: str = "") -> None:
        super().__init__(f"{node}: {message}" if node else message)
        self.node = node


class KernelError(CompileError):
    """A kernel could not be generated or compiled; ``node`` is the kernel's name."""


class ReleasedError(AioError, RuntimeError):
    """The original weights are needed and were given back by `release_weights`."""


class CacheError(AioError, OSError):
    """The on-disk cache cannot be used; callers go on without it."""
