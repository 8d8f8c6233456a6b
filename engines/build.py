"""Build a package's engines: each graph compiled for one backend, with a sidecar that says what it is valid for."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engines.backends import choose_backend, missing_for_native
from engines.compiler import Compiled, Compiler, GpuOptions
from engines.sidecar import NATIVE, SUFFIXES, Sidecar, bytes_of, engine_folder, weights_beside, write_sidecar
from splitmerge.errors import EngineError, InputError
from splitmerge.files import new_folder, sha256_of
from splitmerge.package import Graph, Package

__all__ = ["FORMS", "BuiltEngine", "GpuOptions", "build_engines", "parts_to_build", "refuse_gpu_options"]


FORMS = ("plain", "cpu", "native")
"""Of fp32 parts on a CPU: the package's graphs as they are, those of `export --target cpu`, or the trunk (of a package
without a cut the whole network) compiled natively (`engines.native`) and other parts as with `cpu`."""


@dataclass(frozen=True)
class BuiltEngine:
    """One engine file as it was built. `build` is the sidecar's section: options, layers and the type of each."""

    part: str
    path: Path
    size: int
    seconds: float
    notes: str
    build: Mapping[str, Any]


def build_engines(
    package: Package,
    backend: str = "onnxruntime",
    precision: str = "fp32",
    options: GpuOptions | None = None,
    parts: Sequence[str] | None = None,
    form: str = "plain",
    notes: Mapping[str, Any] | None = None,
) -> list[BuiltEngine]:
    """Compile `parts` (by default stem and trunk, or the model of a package without a cut) into one engines folder.

    The folder appears whole or not at all. Other forms than "plain", one of FORMS, are of onnxruntime and fp32 alone;
    parts that do not have them are built plainly. `notes` go into the sidecars, for people. Raises EngineError where a
    part does not compile.
    """
    backend, _ = choose_backend(backend)
    options = options or GpuOptions()
    if form != "plain" and (backend, precision) != ("onnxruntime", "fp32"):
        raise ValueError(f"The form {form} is of fp32 engines for CPUs, not of {precision} ones for {backend}.")
    if backend == "onnxruntime":
        refuse_gpu_options(options)
    wanted = parts or parts_to_build(package, precision)
    compiler, capability = _compiler(package, backend, precision, options)
    folder = engine_folder(package, backend, precision, capability)
    built = []
    with new_folder(folder) as temporary:
        for part in wanted:
            native = form == "native" and part in ("trunk", "model")
            engine = temporary / (part + (NATIVE if native else SUFFIXES[backend]))
            graph = package.parts(precision)[part]
            if form != "plain" and not native:
                graph = package.manifest.cpu.get(part, graph)
            seconds, compiled = _compile(package, graph, engine, _native() if native else compiler)
            compiled = replace(compiled, build={**compiled.build, **(notes or {})})
            write_sidecar(engine, _sidecar(package, backend, precision, part, engine, graph, compiled, seconds))
            place = folder / engine.name
            built.append(BuiltEngine(part, place, bytes_of(engine), seconds, compiled.notes, compiled.build))
    return built


def parts_to_build(package: Package, precision: str) -> list[str]:
    """The parts that running needs."""
    wanted = ["stem", "trunk"] if package.manifest.cut else ["model"]
    missing = [part for part in wanted if part not in package.parts(precision)]
    if missing:
        raise EngineError(f"{package.folder} lacks the {precision} {' and '.join(missing)}: export the package again.")
    return wanted


def refuse_gpu_options(options: GpuOptions) -> None:
    """Options that change what is built; the numbers of split batches have no meaning on a CPU and do no harm."""
    for name in (
        "capability",
        "device",
        "optimization_level",
        "timing_cache",
        "hardware_compatibility",
        "version_compatible",
    ):
        if getattr(options, name) != getattr(GpuOptions(), name):
            raise InputError(
                f"The {name.replace('_', ' ')} {getattr(options, name)} is of plans for GPUs and onnxruntime runs on "
                "the CPU: leave it out, or build with --backend tensorrt or tensorrt-rtx."
            )


def _compiler(package: Package, backend: str, precision: str, options: GpuOptions) -> tuple[Compiler, str | None]:
    """What compiles, and the compute capability that it compiles for; None on a CPU."""
    if backend == "onnxruntime":
        from engines.onnxruntime_engine import compile_onnxruntime

        return compile_onnxruntime, None
    from engines.tensorrt_builder import TensorRTCompiler

    compiler = TensorRTCompiler(backend, options, precision, package.engines_folder / "timing")
    return compiler, compiler.capability


def _native() -> Compiler:
    """What compiles natively. Raises EngineError where it is not installed."""
    missing = missing_for_native()
    if missing:
        raise EngineError(f"Native engines need {missing}, which is not installed: pip install '.[native]'.")
    from engines.native.engine import compile_native

    return compile_native


def _compile(package: Package, graph: Graph, engine: Path, compiler: Compiler) -> tuple[float, Compiled]:
    start = time.perf_counter()
    compiled = compiler(package.path(graph), graph, engine)
    if not engine.is_file():
        raise EngineError(f"Compiling {package.path(graph)} gave no file: run again and look at the log.")
    return time.perf_counter() - start, compiled


def _sidecar(
    package: Package,
    backend: str,
    precision: str,
    part: str,
    engine: Path,
    graph: Graph,
    compiled: Compiled,
    seconds: float,
) -> Sidecar:
    weights = weights_beside(engine)
    return Sidecar(
        backend=backend,
        version=compiled.version,
        part=part,
        precision=precision,
        engine_sha256=sha256_of(engine),
        graph_sha256=graph.sha256,
        preprocessing_sha256=package.manifest.preprocessing_sha256,
        machine=compiled.machine,
        build={**compiled.build, "seconds": round(seconds, 3)},
        weights_sha256=sha256_of(weights) if weights.is_file() else None,
    )
