"""Generated text to machine code: compiled once per machine, kept on disk, loaded through LLJIT.

No LLVM middle-end passes run: on explicit-vector code they measured no gain (fp32 GEMM 97 GF/s with
none, 94 to 97 with O1 to O3) and cost 20 to 340 ms a kernel. Code generation at level 2.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from functools import cached_property

import llvmlite
import llvmlite.binding as llvm

from torch_aio.codegen.isa import Isa
from torch_aio.codegen.sources import source_digest
from torch_aio.compiling import stage

CODEGEN_LEVEL = 2

Store = Callable[[str, bytes], None]
Fetch = Callable[[str], "bytes | None"]


class Jit:
    """One LLJIT instance for one instruction set; functions live as long as it does.

    ``fetch`` and ``store`` reach the object cache (key -> object file); ``compiled`` counts kernels
    that LLVM had to compile, ``loaded`` those that came from the cache.
    """

    def __init__(self, isa: Isa, fetch: Fetch, store: Store) -> None:
        self.isa, self._fetch, self._store = isa, fetch, store
        self.compiled = self.loaded = 0
        self._trackers: dict[str, llvm.ResourceTracker] = {}
        self._lock = threading.RLock()

    def address(
        self, name: str, text: Callable[[], str], symbols: Mapping[str, int] | None = None
    ) -> int:
        """The address of function ``name``; ``text()`` generates its module if no object is known.

        ``symbols`` are external functions that it calls, by name and address.
        """
        with self._lock:
            tracker = self._trackers.get(name)
            if tracker is None:
                tracker = self._trackers[name] = self._link(name, text, symbols or {})
            return int(tracker[name])

    def assembly(self, text: str) -> str:
        """The assembly that a module compiles to."""
        return str(self._machine.emit_assembly(llvm.parse_assembly(text)))

    @cached_property
    def _machine(self) -> llvm.TargetMachine:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        return llvm.Target.from_triple(self.isa.triple).create_target_machine(
            cpu=self.isa.cpu, features=self.isa.features, opt=CODEGEN_LEVEL, jit=True
        )

    @cached_property
    def _lljit(self) -> llvm.LLJIT:
        return llvm.create_lljit_compiler(self._machine)

    @cached_property
    def _context(self) -> bytes:
        isa = self.isa
        parts = (isa.triple, isa.cpu, isa.features, isa.tune, CODEGEN_LEVEL)
        versions = (llvmlite.__version__, llvm.llvm_version_info)
        return source_digest() + repr((parts, versions)).encode()

    @stage("kernels")
    def _link(
        self, name: str, text: Callable[[], str], symbols: Mapping[str, int]
    ) -> llvm.ResourceTracker:
        key = hashlib.blake2b(self._context + name.encode(), digest_size=20).hexdigest()
        image = self._fetch(key)
        if image is None:
            module = llvm.parse_assembly(text())
            image = self._machine.emit_object(module)
            self._store(key, image)
            self.compiled += 1
        else:
            self.loaded += 1
        library = llvm.JITLibraryBuilder().add_object_img(image).export_symbol(name)
        for symbol, address in symbols.items():
            library.import_symbol(symbol, address)
        return library.link(self._lljit, name)
