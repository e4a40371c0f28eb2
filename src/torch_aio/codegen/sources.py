"""The digest of the package's own sources: part of every key on disk, and known without LLVM."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=2)
def source_digest(folders: tuple[str, ...] = ("codegen", "kernels", "runtime")) -> bytes:
    """A digest of every generator: a changed generator never meets an old object."""
    digest = hashlib.blake2b(digest_size=16)
    package = Path(__file__).parent.parent
    for folder in folders:
        for path in sorted((package / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.digest()
