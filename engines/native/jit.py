"""Kernels compiled for this processor, as functions that ctypes can call."""

import ctypes
import functools
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import llvmlite.binding as llvm
import llvmlite.ir as ir

from engines.native.code import FLOAT, INT
from engines.native.kernels import Tile, convolution, labels, pointwise
from splitmerge.errors import EngineError

__all__ = ["Kernel", "Kernels", "Labels", "Wanted", "compiled", "lanes_here"]

_C_TYPES: dict[str, Any] = {str(INT): ctypes.c_int64, str(FLOAT): ctypes.c_float}


@dataclass(frozen=True)
class Kernel:
    """Which one: a convolution's tile, or None for a 1x1 one; vectors in a panel; whether a map is added."""

    tile: Tile | None
    vectors: int
    added: bool

    def define(self, module: ir.Module, lanes: int) -> ir.Function:
        if self.tile is None:
            return pointwise(module, lanes, self.vectors, self.added)
        return convolution(module, lanes, self.tile, self.vectors, self.added)

    @property
    def name(self) -> str:
        kind = f"convolution{self.tile[0]}x{self.tile[1]}_" if self.tile else "pointwise"
        return f"{kind}{self.vectors}{'_added' if self.added else ''}"


@dataclass(frozen=True)
class Labels:
    """Of the largest channel of each pixel."""

    name = "labels"

    def define(self, module: ir.Module, lanes: int) -> ir.Function:
        return labels(module, lanes)


class Wanted(Protocol):
    """A kernel to be compiled. What helps it is in the module once."""

    @property
    def name(self) -> str: ...

    def define(self, module: ir.Module, lanes: int) -> ir.Function: ...


class Kernels:
    """Compiled functions by name."""

    def __init__(self, lanes: int, wanted: Iterable[Wanted]) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        module = ir.Module("splitmerge")
        functions = {kernel.name: kernel.define(module, lanes) for kernel in wanted}
        features = _features().flatten()
        if lanes == 16:  # where such vectors are avoided for the clock's sake, products gain by them nevertheless
            features += ",-prefer-256-bit"
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=features, opt=3
        )
        module.triple = machine.triple
        assembled = llvm.parse_assembly(str(module))
        assembled.verify()
        tuning = llvm.create_pipeline_tuning_options(speed_level=2)
        tuning.loop_vectorization = tuning.slp_vectorization = tuning.loop_unrolling = False  # it is vectors already
        builder = llvm.create_pass_builder(machine, tuning)
        builder.getModulePassManager().run(assembled, builder)
        self._compiler = llvm.create_mcjit_compiler(assembled, machine)
        self._compiler.finalize_object()
        self._types = {
            name: [_C_TYPES.get(str(argument.type), ctypes.c_void_p) for argument in function.args]
            for name, function in functions.items()
        }
        self._addresses: dict[str, int] = {
            name: self._compiler.get_function_address(function.name) for name, function in functions.items()
        }

    def __getitem__(self, name: str) -> Callable[..., None]:
        return ctypes.CFUNCTYPE(None, *self._types[name])(self._addresses[name])

    def address(self, name: str) -> int:
        """Where the function begins."""
        return self._addresses[name]


@functools.cache
def compiled(lanes: int, wanted: frozenset[Wanted]) -> Kernels:
    """The kernels, compiled once in a process: that takes half a second or one."""
    return Kernels(lanes, sorted(wanted, key=lambda kernel: kernel.name))


def _features() -> Any:
    """What this processor can do, by LLVM's names; nothing where LLVM cannot tell."""
    try:
        return llvm.get_host_cpu_features()
    except RuntimeError:
        return llvm.FeatureMap()


def lanes_here() -> int:
    """Numbers in this processor's widest vector. Raises EngineError where it has none that these kernels know."""
    features = _features()
    for feature, lanes in (("avx512f", 16), ("fma", 8), ("neon", 4)):
        if features.get(feature):
            return lanes
    if platform.machine().lower() in ("aarch64", "arm64"):  # where NEON is never missing
        return 4
    raise EngineError("The native form needs a processor with AVX-512, AVX2 and FMA, or NEON: build another form.")
