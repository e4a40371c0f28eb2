"""What every kernel is: a frozen spec whose name says all that its code bakes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch_aio.codegen.builder import Builder, Params
from torch_aio.codegen.isa import Isa


class KernelSpec(ABC):
    """A kernel to be generated: a frozen dataclass of what the inner loop unrolls."""

    params: ClassVar[Params]

    @property
    @abstractmethod
    def name(self) -> str:
        """The symbol, unique for the spec: ``gemm_f32_6x16_bias_gelu``."""

    @abstractmethod
    def emit(self, k: Builder) -> None:
        """Write the body: work units ``k.begin`` to ``k.end`` of the step."""


def generate(spec: KernelSpec, isa: Isa) -> str:
    """The LLVM module of a kernel, as text."""
    builder = Builder(spec.name, spec.params, isa)
    spec.emit(builder)
    return builder.module()
