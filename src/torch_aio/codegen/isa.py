"""Instruction sets as data: what a generator needs to know of a machine."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace

from torch_aio.codegen.types import Type, i8, i32, vec


@dataclass(frozen=True)
class Dot:
    """Products of bytes: four of them, activations times weights, are added to every i32 lane.

    ``intrinsics``: one that does it on vectors of ``element``, or two on bytes (neighbours to i16,
    neighbours to i32), whose i16 sums must not saturate. Quantised activations are 0 to ``levels``,
    stored less ``offset``; weights are -127 to 127. ``unroll``: terms of four a pass; ``sums``: the
    most vectors of them that do not spill.
    """

    name: str
    intrinsics: tuple[str, ...]
    levels: int
    offset: int = 0
    element: Type = i32
    unroll: int = 4
    sums: int = 32


# 127 * 127 * 2 < 2**15: seven bits an activation cannot saturate. More than two terms a pass spill,
# and on AVX2 6x2 as well (18 times in 24 products, 5x2 never: LLVM 22).
MADDUBS_AVX2 = Dot(
    "maddubs", ("llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd"), 127,
    element=i8, unroll=2, sums=10,
)  # fmt: skip
MADDUBS_AVX512 = Dot(
    "maddubs", ("llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512"), 127,
    element=i8, unroll=2,
)  # fmt: skip
VNNI_AVX2 = Dot("vnni", ("llvm.x86.avx512.vpdpbusd.256",), 255)
VNNI_AVX512 = Dot("vnni", ("llvm.x86.avx512.vpdpbusd.512",), 255)
SDOT = Dot("sdot", ("llvm.aarch64.neon.sdot.v4i32.v16i8",), 255, offset=128, element=i8)


@dataclass(frozen=True)
class Isa:
    """An instruction set.

    ``width``: bits of a vector register; ``registers``: how many there are; ``block``: channels in
    a block of the NCHWc layout (a multiple of the f32 lanes); ``requires``: CPU features without
    which its code does not run; ``cpu``/``features``/``tune``: what LLVM is told; ``tile``: rows x
    vectors of the register tile of GEMM and convolution, largest first; ``has_fp16_arithmetic``,
    ``has_lane_products`` (a vector times one lane of another) and ``dot`` (products of bytes; None:
    there are none) select inner products; ``has_scale``: vectors times powers of two are one
    instruction.
    """

    name: str
    triple: str
    width: int
    registers: int
    block: int
    requires: frozenset[str]
    cpu: str
    features: str
    tune: str
    tile: tuple[tuple[int, int], ...]
    has_fp16_arithmetic: bool = False
    has_lane_products: bool = False
    dot: Dot | None = None
    has_scale: bool = False

    def lanes(self, element: Type) -> int:
        """Elements of a type in one vector register."""
        return self.width // max(element.bits, 8)

    def vector(self, element: Type) -> Type:
        """The vector type that fills one register."""
        return vec(element, self.lanes(element))


AVX2 = Isa(
    name="avx2", triple="x86_64-unknown-linux-gnu", width=256, registers=16, block=8,
    requires=frozenset({"avx2", "fma", "f16c"}),
    cpu="x86-64-v3", features="+f16c", tune="znver3", tile=((6, 2), (3, 4), (4, 2)),
    dot=MADDUBS_AVX2,
)  # fmt: skip
AVX512 = Isa(
    name="avx512", triple="x86_64-unknown-linux-gnu", width=512, registers=32, block=16,
    requires=frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"}),
    cpu="x86-64-v4", features="+f16c", tune="znver4", tile=((12, 2), (8, 3), (6, 4)),
    has_scale=True, dot=MADDUBS_AVX512,
)  # fmt: skip
# Tiles by llvm-mca's model of the N1 (benchmarks.static), share of the peak: GEMM 7x3, 6x3, 8x2
# 0.97, 5x4 0.95, 10x2 0.93, 4x4 0.91; 8x3 0.58 and 6x4 0.66 spill, as a vector of every row's terms
# is held besides the sums. One scalar a row and term instead (8x3): 0.58, LD1R takes an FMA slot.
NEON = Isa(
    name="neon", triple="aarch64-unknown-linux-gnu", width=128, registers=32, block=8,
    requires=frozenset({"asimd", "asimdhp"}),
    cpu="generic", features="+v8.2a,+fullfp16", tune="neoverse-n1", tile=((7, 3), (5, 4), (8, 2)),
    has_fp16_arithmetic=True, has_lane_products=True,
)  # fmt: skip

ISAS = (AVX512, AVX2, NEON)
_MACHINE = {"x86_64": ("x86_64", "AMD64"), "aarch64": ("aarch64", "arm64")}


def detect(features: frozenset[str], name: str = "") -> Isa | None:
    """The best instruction set that these CPU features allow (or the one named), else None."""
    machine = platform.machine()
    for isa in ISAS:
        architecture = isa.triple.split("-")[0]
        if (
            machine in _MACHINE[architecture]
            and isa.requires <= features
            and name in ("", isa.name)
        ):
            return _extend(isa, features)
    return None


def _extend(isa: Isa, features: frozenset[str]) -> Isa:
    if isa.name == "neon" and "asimddp" in features:
        return replace(isa, features=isa.features + ",+dotprod", dot=SDOT)
    if isa.name == "avx512" and "avx512vnni" in features:
        return replace(isa, features=isa.features + ",+avx512vnni", dot=VNNI_AVX512)
    if isa.name == "avx2" and "avxvnni" in features:
        return replace(isa, features=isa.features + ",+avxvnni", dot=VNNI_AVX2)
    return isa
