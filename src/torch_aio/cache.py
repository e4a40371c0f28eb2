"""The on-disk cache of native objects and plans: hex key -> bytes.

What lies here is run as machine code, so an entry counts only if this user owns it, nobody else can
write it or its folder, and its checksum (over key and content) is right; anything else is as good
as absent. Entries are written beside and renamed, so readers never see half of one. No failure
of the disk is an error of the caller's: the cache goes quiet after one notice.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import threading
import time
import weakref
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

from torch_aio import config, log
from torch_aio.errors import CacheError

LIMIT = 512 << 20  # bytes; a ResNet-50 stores some 1 MB
MAGIC = b"aio cache 1\n"
_DIGEST = 32
_DAY = 86400.0
_HEX = frozenset("0123456789abcdef")
_counter = itertools.count()


def default() -> DiskCache:
    """The cache in the folder that AIO_CACHE_DIR names at this moment."""
    return at(str(config.read().cache_path))


@lru_cache(maxsize=16)
def at(folder: str) -> DiskCache:
    """The cache in this folder: one per folder and process."""
    return DiskCache(Path(folder))


class DiskCache:
    """A folder of checksummed entries, at most ``limit`` bytes, the least recently used leave."""

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self.folder, self.limit = folder, limit
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._off = False
        self._read_only = False
        self._since_sweep = limit  # bytes put since the last sweep: the first put sweeps

    def get(self, key: str) -> bytes | None:
        """The content stored under a key, or None (25 us for 10 kB)."""
        fd = self._open(key)
        if fd is None:
            return None
        try:
            entry = os.open(key, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        except OSError:
            return None
        try:
            return _verified(key, entry)
        except OSError:
            return None
        finally:
            os.close(entry)

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """The contents of those keys that are there."""
        found = ((key, self.get(key)) for key in keys)
        return {key: content for key, content in found if content is not None}

    def put(self, key: str, content: bytes) -> None:
        """Store content under a key, replacing what was there."""
        if self._read_only or len(content) > self.limit or self._open(key) is None:
            return
        data = MAGIC + _checksum(key, content) + content
        try:
            self._write(key, data)
        except FileNotFoundError:  # the folder was removed meanwhile
            self._close()
            if self._open(key) is not None:
                self._try_write(key, data)
        except OSError as reason:
            self._stop_writing(reason)
        self._account(len(data))

    def size(self) -> int:
        """The bytes that all entries take."""
        return sum(size for _, size, _ in self._entries())

    def clear(self) -> int:
        """Remove every entry; how many there were."""
        return sum(self._remove(name) for name, _, _ in self._entries())

    def _open(self, key: str) -> int | None:
        """The descriptor of the folder, made and checked at first use; None without a cache."""
        if not key or not _HEX.issuperset(key):
            raise ValueError(f"a cache key is a hex digest, not {key!r}")
        if self._fd is None and not self._off:
            with self._lock:
                if self._fd is None and not self._off:
                    self._open_folder()
        return self._fd

    def _open_folder(self) -> None:
        try:
            fd = _trusted_folder(self.folder)
        except OSError as reason:
            self._off = True
            text = f"no kernels are kept on disk: {_reason(reason)} (AIO_CACHE_DIR)"
            log.notice_once(f"cache {self.folder}", text)
            return
        self._fd = fd
        self._finalizer = weakref.finalize(self, os.close, fd)

    def _close(self) -> None:
        with self._lock:
            if self._fd is not None:
                self._fd = None
                self._finalizer()

    def _write(self, key: str, data: bytes) -> None:
        fd = self._fd
        temporary = f".tmp-{os.getpid()}-{next(_counter)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        entry = os.open(temporary, flags, 0o600, dir_fd=fd)
        try:
            with os.fdopen(entry, "wb", buffering=0) as file:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
            os.replace(temporary, key, src_dir_fd=fd, dst_dir_fd=fd)
        except OSError:
            self._remove(temporary)
            raise

    def _try_write(self, key: str, data: bytes) -> None:
        try:
            self._write(key, data)
        except OSError as reason:
            self._stop_writing(reason)

    def _stop_writing(self, reason: OSError) -> None:
        self._read_only = True
        text = f"no more kernels are kept in {self.folder}: {_reason(reason)}"
        log.notice_once(f"cache write {self.folder}", text)

    def _account(self, written: int) -> None:
        """Sweep at the first put and after every sixteenth of the limit."""
        with self._lock:
            self._since_sweep += written
            due = self._since_sweep > self.limit // 16
            if due:
                self._since_sweep = 0
        if due:
            self._sweep()

    def _sweep(self) -> None:
        """Remove the least recently used down to 80 % of the limit, and stale temporaries."""
        entries = sorted(self._entries(), key=lambda entry: entry[2])
        total, now = sum(size for _, size, _ in entries), time.time()
        goal = self.limit * 4 // 5 if total > self.limit else total
        for name, size, modified in entries:
            stale = name.startswith(".tmp-") and now - modified > _DAY
            if (total > goal or stale) and self._remove(name):
                total -= size

    def _entries(self) -> list[tuple[str, int, float]]:
        """Name, size and last use of each entry; files that are not ours are left alone."""
        fd = self._open("0")
        if fd is None:
            return []
        found = []
        with contextlib.suppress(OSError), os.scandir(fd) as folder:
            for item in folder:
                if _HEX.issuperset(item.name) or item.name.startswith(".tmp-"):
                    with contextlib.suppress(OSError):
                        status = item.stat(follow_symlinks=False)
                        found.append((item.name, status.st_size, status.st_mtime))
        return found

    def _remove(self, name: str) -> bool:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._fd)
            return True
        return False


def _trusted_folder(folder: Path) -> int:
    """A descriptor of the folder, made 0700 if absent; raises `OSError` if others rule it."""
    if not hasattr(os, "geteuid") or os.open not in os.supports_dir_fd:
        raise CacheError(errno.ENOTSUP, "this platform cannot say who owns a file")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    refusal = _refusal(os.fstat(fd))
    if refusal:
        os.close(fd)
        raise CacheError(errno.EPERM, f"{folder} {refusal}")
    return fd


def _refusal(status: os.stat_result) -> str:
    """Why a file or folder is not to be trusted; empty if it is."""
    if status.st_uid != os.geteuid():
        return "belongs to another user"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be written by others"
    return ""


def _verified(key: str, entry: int) -> bytes | None:
    status = os.fstat(entry)
    if _refusal(status) or not stat.S_ISREG(status.st_mode):
        text = f"the cache entry {key} is ignored: {_refusal(status) or 'no regular file'}"
        log.notice_once(f"cache entry {key}", text)
        return None
    with os.fdopen(os.dup(entry), "rb", buffering=0) as file:
        data = file.read()
    start = len(MAGIC) + _DIGEST
    content = data[start:]
    if data[:start] != MAGIC + _checksum(key, content):
        return None
    if time.time() - status.st_mtime > _DAY:  # recent enough for eviction, and reads stay cheap
        with contextlib.suppress(OSError):
            os.utime(entry)
    return content


def _checksum(key: str, content: bytes) -> bytes:
    return blake2b(content, digest_size=_DIGEST, key=key.encode()[:64]).digest()


def _reason(error: OSError) -> str:
    return f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
