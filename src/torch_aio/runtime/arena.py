"""Memory of a call in flight: arenas that calls borrow and give back."""

from __future__ import annotations

import ctypes
import mmap

from torch_aio.runtime.binding import bind_memory

MOST_FREE = 8
"""Arenas kept for the next calls; more calls at once than this allocate and free their own."""


class Arena:
    """Page-aligned zeroed memory with huge pages asked for."""

    __slots__ = ("_map", "address", "bytes")

    def __init__(self, size: int) -> None:
        self.bytes = max(-(-size // mmap.PAGESIZE) * mmap.PAGESIZE, mmap.PAGESIZE)
        self._map = mmap.mmap(-1, self.bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._map.madvise(mmap.MADV_HUGEPAGE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        bind_memory(self.address, self.bytes)


class ArenaPool:
    """A capped free list. List operations are atomic: calls from several threads need no lock."""

    def __init__(self) -> None:
        self._free: list[Arena] = []

    def take(self, size: int) -> Arena:
        """An arena of at least ``size`` bytes; a smaller free one is dropped for it."""
        try:
            arena = self._free.pop()
        except IndexError:
            return Arena(size)
        return arena if arena.bytes >= size else Arena(size)

    def give(self, arena: Arena) -> None:
        """Return an arena after a call."""
        if len(self._free) < MOST_FREE:
            self._free.append(arena)
