"""The emulated Altra itself: what everything else that runs there relies on."""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    platform.machine() != "aarch64", reason="an Arm core is needed (scripts/test-aarch64)"
)

AT_HWCAP = 16
FPHP, ASIMDHP, ASIMDDP = 1 << 9, 1 << 10, 1 << 20
SVE = 1 << 22

SDOT_AND_HALF = """
define <4 x float> @half_fma(<8 x half> %a, <8 x half> %b, <8 x half> %c) {
  %r = call <8 x half> @llvm.fma.v8f16(<8 x half> %a, <8 x half> %b, <8 x half> %c)
  %low = shufflevector <8 x half> %r, <8 x half> poison, <4 x i32> <i32 0, i32 1, i32 2, i32 3>
  %wide = fpext <4 x half> %low to <4 x float>
  ret <4 x float> %wide
}
define void @dot(ptr %acc, ptr %a, ptr %b) {
  %c = load <4 x i32>, ptr %acc
  %x = load <16 x i8>, ptr %a
  %y = load <16 x i8>, ptr %b
  %r = call <4 x i32> @llvm.aarch64.neon.sdot.v4i32.v16i8(<4 x i32> %c, <16 x i8> %x, <16 x i8> %y)
  store <4 x i32> %r, ptr %acc
  ret void
}
define void @twice(ptr %data) {
  %x = load float, ptr %data
  %y = fadd float %x, %x
  store float %y, ptr %data
  ret void
}
declare <8 x half> @llvm.fma.v8f16(<8 x half>, <8 x half>, <8 x half>)
declare <4 x i32> @llvm.aarch64.neon.sdot.v4i32.v16i8(<4 x i32>, <16 x i8>, <16 x i8>)
"""


def hwcap() -> int:
    """The kernel's word on the core's features."""
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.restype = ctypes.c_ulong
    return int(getauxval(ctypes.c_ulong(AT_HWCAP)))


def test_hwcap_is_a_neoverse_n1() -> None:
    """fp16 arithmetic and dot products are there, SVE is not."""
    assert hwcap() & FPHP
    assert hwcap() & ASIMDHP
    assert hwcap() & ASIMDDP
    assert not hwcap() & SVE


def test_llvm_generates_and_runs_code_for_it() -> None:
    """MCJIT for a stated neoverse-n1: machine code runs, SDOT and fp16 FMLA are selected."""
    from llvmlite import binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(cpu="neoverse-n1", features="+fullfp16,+dotprod", opt=3)
    module = llvm.parse_assembly(SDOT_AND_HALF)
    assembly = machine.emit_assembly(module)
    assert "sdot\tv" in assembly
    assert "fmla\tv" in assembly
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    data = (ctypes.c_float * 1)(1.25)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(engine.get_function_address("twice"))(data)
    assert data[0] == 2.5
    acc, ones = (ctypes.c_int32 * 4)(5, 6, 7, 8), (ctypes.c_int8 * 16)(*range(16))
    pointers = [ctypes.c_void_p] * 3
    ctypes.CFUNCTYPE(None, *pointers)(engine.get_function_address("dot"))(acc, ones, ones)
    assert list(acc) == [5 + 14, 6 + 126, 7 + 366, 8 + 734]


def test_a_parallel_region_has_two_threads() -> None:
    """GOMP_parallel of the libgomp that torch loaded runs its function on both threads."""
    import torch

    torch.set_num_threads(2)
    maps = Path("/proc/self/maps").read_text()
    [library] = {line.split()[-1] for line in maps.splitlines() if "libgomp" in line}
    gomp = ctypes.CDLL(library)
    seen: list[int] = []
    region = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(
        lambda _data: seen.append(gomp.omp_get_thread_num())
    )
    for _ in range(20):
        gomp.GOMP_parallel(region, None, 2, 0)
    assert sorted(seen) == [0] * 20 + [1] * 20


def test_torch_computes_on_two_threads() -> None:
    """A product large enough for torch's own parallel path is right."""
    import torch

    torch.set_num_threads(2)
    a, b = torch.randn(96, 80), torch.randn(80, 72)
    torch.testing.assert_close((a @ b).double(), a.double() @ b.double(), rtol=1e-4, atol=1e-4)


def test_subprocesses_are_emulated_too() -> None:
    """sys.executable starts another emulated interpreter."""
    program = "import platform, struct; print(platform.machine(), struct.calcsize('P'))"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.split() == ["aarch64", str(struct.calcsize("P"))]


def test_executable_pages_can_be_made() -> None:
    """The JIT's pages: anonymous memory may become executable."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(b"\xc0\x03\x5f\xd6")  # ret
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    ctypes.CFUNCTYPE(None)(address)()
