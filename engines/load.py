"""Load an engine that `splitmerge build` made, or say in one sentence why not."""

from pathlib import Path

from engines.backends import choose_backend
from engines.interface import Engine
from engines.onnxruntime_engine import OnnxRuntimeEngine, refusal_here, threads_of_pool
from engines.sidecar import SUFFIXES, Sidecar, build_command, engine_folder, read_sidecar, refusal
from splitmerge.errors import EngineError
from splitmerge.package import Package

__all__ = ["load_engine", "reason_invalid"]


def load_engine(
    package: Package,
    part: str,
    backend: str = "onnxruntime",
    precision: str = "fp32",
    threads: int | None = None,
    contexts: int = 1,
) -> Engine:
    """The engine of one part (`model`, `stem` or `trunk`), ready to create contexts.

    `contexts` is how many will run at once; each has `threads` CPU threads, by default its share of the cores. The
    sidecar is checked before the engine's file is handed to the backend. Raises EngineError where there is no engine,
    or it is not for this package, this machine and this version.
    """
    backend, _ = choose_backend(backend)
    if part not in package.parts(precision):
        raise EngineError(
            f"{package.folder} has no {precision} {part}: ask for one of {', '.join(package.parts(precision))}."
        )
    if backend != "onnxruntime":
        raise EngineError(
            f"Engines for {backend} can be built but not run yet: run {package.folder} with --backend onnxruntime."
        )
    path = engine_folder(package, backend, precision) / (part + SUFFIXES[backend])
    mend = build_command(package, backend, precision)
    if not path.with_suffix(".json").is_file():
        raise EngineError(f"{package.folder} has no {backend} engine of its {precision} {part}: make it with `{mend}`.")
    reason = reason_invalid(path, read_sidecar(path), package, part, precision)
    if reason:
        raise EngineError(f"{path} cannot be used, {reason}: build it again with `{mend}`.")
    pool = threads_of_pool(contexts, threads)
    return OnnxRuntimeEngine(path.read_bytes(), pool, shared_arena=part != "model")


def reason_invalid(path: Path, sidecar: Sidecar, package: Package, part: str, precision: str) -> str | None:
    """Why the engine file `path` cannot be used here; None where it can, as far as can be told without running it."""
    reason = refusal(path, sidecar, package, part, precision)
    if reason is None and path.suffix == SUFFIXES["onnxruntime"]:
        reason = refusal_here(sidecar)
    return reason
