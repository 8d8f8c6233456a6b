"""Kernels compiled for this processor, as functions that ctypes can call."""

import ctypes
import functools
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
import llvmlite.ir as ir

from engines.native.code import FLOAT, INT
from engines.native.kernels import Tile, convolution, labels, pointwise, products
from splitmerge.errors import EngineError

__all__ = ["Kernel", "Kernels", "compiled", "lanes_here"]

_C_TYPES: dict[str, Any] = {str(INT): ctypes.c_int64, str(FLOAT): ctypes.c_float}


@dataclass(frozen=True)
class Kernel:
    """Which one: a convolution's tile, or None for a 1x1 one; vectors in a panel; whether a map is added."""

    tile: Tile | None
    vectors: int
    added: bool

    @property
    def name(self) -> str:
        kind = f"convolution{self.tile[0]}x{self.tile[1]}_" if self.tile else "pointwise"
        return f"{kind}{self.vectors}{'_added' if self.added else ''}"


class Kernels:
    """Compiled functions by name; `labels` is always among them."""

    def __init__(self, lanes: int, wanted: Iterable[Kernel]) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        module = ir.Module("splitmerge")
        functions = [labels(module, lanes)]
        product = functools.cache(lambda vectors, added: products(module, lanes, vectors, added))
        for kernel in wanted:
            one = product(kernel.vectors, kernel.added and kernel.tile is None)
            if kernel.tile is None:
                functions.append(pointwise(module, lanes, kernel.vectors, kernel.added, one))
            else:
                functions.append(convolution(module, lanes, kernel.tile, kernel.vectors, kernel.added, one))
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
        self._functions = {function.name: self._callable(function) for function in functions}

    def __getitem__(self, name: str) -> Callable[..., None]:
        return self._functions[name]

    def _callable(self, function: ir.Function) -> Callable[..., None]:
        types = [_C_TYPES.get(str(argument.type), ctypes.c_void_p) for argument in function.args]
        address = self._compiler.get_function_address(function.name)
        return ctypes.CFUNCTYPE(None, *types)(address)


@functools.cache
def compiled(lanes: int, wanted: frozenset[Kernel]) -> Kernels:
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
