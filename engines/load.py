"""Load an engine that `splitmerge build` made, or say in one sentence why not."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from engines.backends import choose_backend, loaded_version, missing_for_native
from engines.cuda import CudaDevice
from engines.host import HostDevice
from engines.interface import Device, Engine
from engines.machine import Gpu, ask_driver
from engines.onnxruntime_engine import OnnxRuntimeEngine, refusal_here, threads_of_each
from engines.plan import plan_refusal
from engines.sidecar import (
    NATIVE,
    SUFFIXES,
    Sidecar,
    build_command,
    engine_file,
    engine_folder,
    engine_folders,
    read_sidecar,
    refusal,
    weights_beside,
)
from splitmerge.errors import EngineError, InputError
from splitmerge.files import sha256_of
from splitmerge.package import Package

__all__ = ["cpu_refusal", "load_engine", "open_device", "reason_invalid"]


def open_device(backend: str, index: int = 0) -> Device:
    """What engines of a backend run on: the CPU, or the GPU that CUDA calls `index`. Its owner closes it.

    Raises InputError where there is no such device.
    """
    if SUFFIXES[backend] != ".plan":
        if index:
            raise InputError(f"{backend} runs on the CPU and knows no device {index}: leave --devices out.")
        return HostDevice()
    gpus, problems = ask_driver()
    for gpu in gpus:
        if gpu.index == index:
            return CudaDevice(gpu)
    have = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in gpus) or f"none: {'; '.join(problems)}"
    raise InputError(f"{backend} finds no GPU {index} here (there is {have}): choose --devices among those.")


def load_engine(
    package: Package,
    part: str,
    backend: str = "onnxruntime",
    precision: str = "fp32",
    threads: int | None = None,
    contexts: int = 1,
    device: Device | None = None,
    roomy: bool = False,
) -> Engine:
    """The engine of one part (`model`, `stem` or `trunk`), ready to create contexts.

    `contexts` is how many will run at once; on a CPU each has `threads` threads, by default its share of the cores,
    and `roomy` takes memory for speed (`engines.onnxruntime_engine`); engines for GPUs do not know it.
    `device` is from `open_device`; one for the backend's first is opened where it is None. The sidecar is checked
    before the engine's file is handed to the backend. Raises EngineError where there is no engine, or it is not for
    this package, this machine and this version.
    """
    backend, _ = choose_backend(backend)
    if part not in package.parts(precision):
        raise EngineError(
            f"{package.folder} has no {precision} {part}: ask for one of {', '.join(package.parts(precision))}."
        )
    device = device or open_device(backend)
    path, sidecar = _usable(package, part, backend, precision, device.gpu if isinstance(device, CudaDevice) else None)
    engine = path.read_bytes()
    replaced = EngineError(f"{path} was replaced while it was being loaded: load it again.")
    if hashlib.sha256(engine).hexdigest() != sidecar.engine_sha256:  # it was changed since it was checked
        raise replaced
    if isinstance(device, CudaDevice):
        from engines.tensorrt_engine import TensorRTEngine

        return TensorRTEngine(engine, backend, device, sidecar.machine.get("version_compatible") is True)
    try:
        if path.suffix == NATIVE:
            return _native(engine, weights_beside(path), part, threads_of_each(contexts, threads))
        return OnnxRuntimeEngine(
            engine, threads_of_each(contexts, threads), part != "model", roomy, contexts, weights=path.parent
        )
    finally:  # weights have been mapped by name
        if sidecar.weights_sha256 is not None and not _is(weights_beside(path), sidecar.weights_sha256):
            raise replaced


def _native(engine: bytes, weights: Path, part: str, threads: int) -> Engine:
    if part == "model":
        from engines.native.whole.engine import NetworkEngine

        return NetworkEngine(engine, weights, threads)
    from engines.native.engine import NativeEngine

    return NativeEngine(engine, weights)


def reason_invalid(
    path: Path, sidecar: Sidecar, package: Package, part: str, precision: str, gpu: Gpu | None = None
) -> str | None:
    """Why the engine file `path` cannot be used here; None where it can, as far as can be told without running it.

    A plan is held against `gpu` where one is given.
    """
    reason = refusal(path, sidecar, package, part, precision)
    if reason is None and path.suffix != ".plan":
        reason = cpu_refusal(path, sidecar)
    if reason is None and gpu is not None:
        reason = plan_refusal(path, sidecar, gpu, loaded_version(sidecar.backend))
    return reason


def cpu_refusal(path: Path, sidecar: Sidecar) -> str | None:
    """Why an engine for CPUs is not for this machine and what is installed; None where it is."""
    if path.suffix != NATIVE:
        return refusal_here(sidecar)
    missing = missing_for_native(builds=False)
    if missing:
        return f"it was compiled natively and needs {missing}, which is not installed (pip install '.[native]')"
    from engines.native.engine import native_refusal

    return native_refusal(sidecar)


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256


def _usable(package: Package, part: str, backend: str, precision: str, gpu: Gpu | None) -> tuple[Path, Sidecar]:
    """The engine's file and its description, of the first folder whose engine can be used."""
    capability, index = (gpu.capability, gpu.index) if gpu else (None, None)
    mend = build_command(package, backend, precision, capability, index)
    reasons = []
    for path in _candidates(engine_folders(package, backend, precision, capability), part, backend):
        sidecar = read_sidecar(path)
        reason = reason_invalid(path, sidecar, package, part, precision, gpu)
        if reason is None:
            return path, sidecar
        reasons.append(f"{path} cannot be used, {reason}: build it again with `{mend}`.")
    if reasons:
        raise EngineError(reasons[0])
    place = engine_folder(package, backend, precision, capability).name
    raise EngineError(
        f"{package.folder} has no {backend} engine of its {precision} {part} for this machine (in engines/{place}): "
        f"make it with `{mend}`."
    )


def _candidates(folders: Sequence[Path], part: str, backend: str) -> list[Path]:
    paths = [engine_file(folder, part, backend) for folder in folders]
    return [path for path in paths if path.with_suffix(".json").is_file()]
