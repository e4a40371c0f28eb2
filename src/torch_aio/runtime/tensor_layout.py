"""Where PyTorch keeps what tells of a change to a tensor: found on this PyTorch, by probing.

A look at a weight from Python costs four attribute calls (0.5 us); the words themselves are five
cache lines. Which words they are is not part of PyTorch's interface, so they are never assumed: a
word counts only where tensors made for the purpose show that it, and no other, holds the value.
Where that fails there is no layout, and weights are looked at from Python.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import torch

WORD = 8
MOST_DIMS = 5
"""Sizes and strides of more dimensions lie in a block of their own."""
_WORDS = 21
"""Words of a TensorImpl that are looked at: to that of the dtype (the last in PyTorch 2.14)."""
_STORAGE_WORDS = 4
_COUNTER_BYTES = 24
_SHAPE, _STRIDES, _OFFSET = (3, 5, 7), (1009, 67, 2), 1237


@dataclass(frozen=True)
class TensorLayout:
    """Byte offsets: in a TensorImpl up to ``strides``, then in StorageImpl and VersionCounter.

    ``dims`` counts dimensions; the sizes follow. ``strides`` is that of dimension 0. The word
    ``dtype`` holds flags as well.
    """

    storage: int
    counter: int
    offset: int
    dtype: int
    dims: int
    strides: int
    data: int
    version: int


@cache
def tensor_layout() -> TensorLayout | None:
    """This PyTorch's layout; None where some word is not found, or more than one could be it."""
    with torch.inference_mode(mode=False), torch.no_grad():
        try:
            return _probe()
        except _UnknownError:
            return None


class _UnknownError(Exception):
    pass


def _probe() -> TensorLayout:
    storage = torch.frombuffer(bytearray(1 << 16), dtype=torch.float32)
    tensor = storage.as_strided(_SHAPE, _STRIDES, _OFFSET)
    same, unshared = tensor.detach(), tensor.data
    words, others = _words(tensor), _words(same)
    alike = [i for i in range(_WORDS) if words[i] == others[i]]
    memory = tensor.untyped_storage()
    counter = _only(i for i in alike if words[i] != _words(unshared)[i])
    integers = _words(tensor.view(torch.int32))
    return TensorLayout(
        storage=_only(i for i in alike if words[i] == memory._cdata) * WORD,
        counter=counter * WORD,
        offset=_only(i for i in alike if words[i] == _OFFSET) * WORD,
        dtype=_only(i for i in alike if words[i] != integers[i]) * WORD,
        dims=_row(words, (len(_SHAPE), *_SHAPE)) * WORD,
        strides=_row(words, _STRIDES) * WORD,
        data=_data(memory) * WORD,
        version=_version(tensor, words[counter]),
    )


def _data(memory: torch.UntypedStorage) -> int:
    found = list((ctypes.c_uint64 * _STORAGE_WORDS).from_address(memory._cdata))
    return _only(i for i in range(_STORAGE_WORDS) if found[i] == memory.data_ptr())


def _version(tensor: torch.Tensor, counter: int) -> int:
    """The byte offset of the number in the counter, which tensors of this storage share."""

    def holding() -> set[int]:
        numbers = (ctypes.c_uint32 * (_COUNTER_BYTES // 4)).from_address(counter)
        return {4 * i for i, number in enumerate(numbers) if number == tensor._version}

    candidates = holding()
    for _ in range(40):
        tensor.zero_()
        candidates &= holding()
    return _only(candidates)


def _words(tensor: torch.Tensor) -> list[int]:
    return list((ctypes.c_uint64 * _WORDS).from_address(tensor._cdata))


def _row(words: Sequence[int], wanted: Sequence[int]) -> int:
    """Where consecutive words hold ``wanted``."""
    n = len(wanted)
    return _only(i for i in range(len(words) - n + 1) if tuple(words[i : i + n]) == tuple(wanted))


def _only(found: Iterable[int]) -> int:
    """The one element; raises _UnknownError otherwise."""
    elements = list(found)
    if len(elements) != 1:
        raise _UnknownError
    return elements[0]
