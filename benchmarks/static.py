"""Hot kernels on processors that are not here: predicted by llvm-mca from their assembly.

``python -m benchmarks.static`` generates every hot kernel for Neoverse N1 (NEON) and, as a control,
for Zen 3 (AVX2), isolates the innermost loop that is densest in multiply-adds and gives it whole to
llvm-mca (Debian package llvm-22; before LLVM 16 it has no model of the N1). Printed are cycles an
iteration, the share of the peak (two multiply-adds of a vector a cycle, both cores), and accesses
to the stack in the loop (spills). Caches are taken to hit.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch_aio.codegen.isa import AVX2, NEON, Isa
from torch_aio.codegen.jit import Jit
from torch_aio.kernels.conv import Conv
from torch_aio.kernels.conv_tiles import TILES
from torch_aio.kernels.depthwise import Depthwise
from torch_aio.kernels.gemm import Gemm
from torch_aio.kernels.gemv import Gemv, GemvColumns
from torch_aio.kernels.spec import KernelSpec, generate
from torch_aio.kernels.winograd import Winograd
from torch_aio.plan.families.winograd import ROWS

FMA_PIPES = 2
ITERATIONS = 100
DENSE = 0.75
LABEL = re.compile(r"^([.\w$]+):")
BRANCH = re.compile(r"^\s+(?:b|b\.\w+|cbn?z|tbn?z|j\w+)\s.*?([.\w$]+)$")
FMA = re.compile(r"^\s+(?:fmla\s.*\.4s|vfn?madd\w+ps\s)")
STACK = re.compile(r"\[sp|\[x29|\(%r[sb]p")


@dataclass(frozen=True)
class Target:
    """A processor: what llvm-mca calls it, and the instruction set our kernels use there."""

    processor: str
    isa: Isa


TARGETS = (Target("neoverse-n1", NEON), Target("znver3", AVX2))


def kernels(isa: Isa) -> Iterable[KernelSpec]:
    """The hot kernels of an instruction set, every register tile that the planner may choose."""
    yield from (Gemm(tile) for tile in isa.tile)
    for tile in TILES[isa.name]:
        yield Conv(tile)
        yield Conv(tile, columns=3)
    for tile in ROWS[isa.name]:
        yield from (Winograd(outputs, tile) for outputs in (2, 4))
    for kernel in ((3, 3), (5, 5)):
        yield from (Depthwise(kernel, stride) for stride in (1, 2))
    for rows in (1, 4):
        yield Gemv(rows)
        yield GemvColumns(rows)


def innermost(assembly: str) -> list[list[str]]:
    """The instructions of every loop that holds no other: from a label to the branch back to it."""
    lines = assembly.splitlines()
    labels = {found[1]: n for n, line in enumerate(lines) if (found := LABEL.match(line))}
    loops: list[tuple[int, int]] = []
    for end, line in enumerate(lines):
        branch = BRANCH.match(line)
        begin = labels.get(branch[1], end) if branch else end
        if begin < end and not any(begin <= first for first, _ in loops):
            loops.append((begin, end))
    return [[x for x in lines[a : b + 1] if x[:1] == "\t" and x[1:2] != "."] for a, b in loops]


def hottest(assembly: str) -> list[str]:
    """The innermost loop with most multiply-adds, of those densest in them: no transform."""
    loops = innermost(assembly)
    dense = DENSE * max(multiply_adds(loop) / len(loop) for loop in loops)
    return max((x for x in loops if multiply_adds(x) >= dense * len(x)), key=multiply_adds)


def multiply_adds(loop: Sequence[str]) -> int:
    """Vector multiply-adds in a loop."""
    return sum(bool(FMA.match(line)) for line in loop)


def stack_accesses(loop: Sequence[str]) -> int:
    """Instructions of a loop that touch the stack."""
    return sum(bool(STACK.search(line)) for line in loop)


def analyser() -> str:
    """The newest llvm-mca there is."""
    names = [f"llvm-mca-{version}" for version in range(30, 15, -1)]
    for name in (*names, "llvm-mca"):
        if path := shutil.which(name):
            return path
    raise SystemExit("llvm-mca is missing: apt-get install llvm-22 (or another from 16 on)")


def cycles(loop: Sequence[str], target: Target, mca: str) -> float:
    """Cycles an iteration, over so many that the first ones do not count."""
    command = [mca, f"-mtriple={target.isa.triple}", f"-mcpu={target.processor}"]
    command += [f"-iterations={ITERATIONS}", "-instruction-info=0", "-resource-pressure=0"]
    text = "\n".join(loop)
    report = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=True)
    found = re.search(r"Total Cycles:\s+(\d+)", report.stdout)
    assert found is not None, report.stdout
    return int(found[1]) / ITERATIONS


def line(spec: KernelSpec, target: Target, mca: str) -> str:
    """One row of the table."""
    jit = Jit(target.isa, lambda _: None, lambda *_: None)
    loop = hottest(jit.assembly(generate(spec, target.isa)))
    products, spent = multiply_adds(loop), cycles(loop, target, mca)
    share = products / FMA_PIPES / spent
    return f"{spec.name:<28} {products:>5} {spent:8.1f} {share:6.0%} {stack_accesses(loop):6}"


def main() -> None:
    """Print a table for each processor."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    ).parse_args()
    mca = analyser()
    for target in TARGETS:
        print(f"{target.processor:<28} {'fma':>5} {'cycles':>8} {'share':>6} {'stack':>6}")
        for spec in kernels(target.isa):
            print(line(spec, target, mca), flush=True)


if __name__ == "__main__":
    main()
