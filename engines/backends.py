"""Which backends this machine has, and which one `auto` means."""

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.machine import Gpu, ask_driver, find_gpus
from engines.plan import plan_refusal
from engines.sidecar import SUFFIXES, build_command, engine_file, engine_folder, engine_folders, read_sidecar, refusal
from splitmerge.errors import EngineError, InputError
from splitmerge.package import Package

__all__ = [
    "BACKENDS",
    "Backend",
    "backend_module",
    "choose_backend",
    "choose_backend_to_run",
    "find_backends",
    "find_version",
    "is_installed",
    "loaded_version",
    "missing_for_native",
]

BACKENDS = ("onnxruntime", "tensorrt", "tensorrt-rtx")

# what `auto` tries first: TensorRT tunes a plan on the GPU itself; ONNX Runtime runs everywhere, on the CPU
_PREFERRED = ("tensorrt", "tensorrt-rtx", "onnxruntime")
_MODULES = {"onnxruntime": "onnxruntime", "tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt-rtx": ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"),
}
# TensorRT-RTX is for GeForce and RTX cards: it knows no 9.0, 10.x or 11.x
_RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.7", "8.8", "8.9")
_RTX_MAJORS = ("12",)


@dataclass(frozen=True)
class Backend:
    """One backend as found here.

    `version` is None where it is not installed; `obstacle` says why it cannot run engines, in a few words, and is empty
    where it can; `install` is what to type where it is missing.
    """

    name: str
    version: str | None
    builds: bool
    obstacle: str
    install: str

    @property
    def runs(self) -> bool:
        """Whether it can run engines here."""
        return not self.obstacle


def find_backends() -> dict[str, Backend]:
    """All backends. None is imported: a TensorRT without its driver may not survive that."""
    gpus, problems = ask_driver()
    found = {}
    for name in BACKENDS:
        version = find_version(name)
        obstacle = _obstacle(name, version, gpus, problems)
        builds = version is not None and (name != "tensorrt" or bool(gpus))
        found[name] = Backend(name, version, builds, obstacle, _install(name, gpus))
    return found


def choose_backend(name: str) -> tuple[str, str]:
    """The backend that `name` (one of BACKENDS, or `auto`) means here for building, and why.

    Raises InputError for other names and EngineError where it is not installed.
    """
    found = _found(name)
    if name != "auto":
        return name, "asked for"
    chosen = next((backend for backend in _PREFERRED if found[backend].runs), None)
    if chosen is None:
        raise EngineError(f"No backend that runs engines is installed: {found['onnxruntime'].install}.")
    return chosen, _why(chosen, {backend: found[backend].obstacle for backend in _PREFERRED})


def choose_backend_to_run(
    package: Package, name: str, precision: str, devices: Sequence[int] = (0,)
) -> tuple[str, str]:
    """The backend that `name` means for running this package's engines on these GPUs, and why.

    `auto` takes the best one that has engines of this precision which can be used here; where none has, the one that
    `auto` would build for. Raises what `choose_backend` raises, and EngineError rather than pass over a plan that was
    built for one of these GPUs and cannot be used, or run on the CPU where another device than the first is named.
    """
    found = _found(name)
    if name != "auto":
        return name, "asked for"
    obstacles = {
        backend: found[backend].obstacle or _engine_obstacle(package, backend, precision, devices)
        for backend in _PREFERRED
    }
    chosen = next((backend for backend in _PREFERRED if not obstacles[backend]), None)
    for backend in _PREFERRED[: _PREFERRED.index(chosen)] if chosen else _PREFERRED:
        if found[backend].runs and SUFFIXES[backend] == ".plan":
            _refuse_to_pass_over(package, backend, precision, devices, obstacles[backend])
    if any(devices) and (chosen is None or SUFFIXES[chosen] != ".plan"):
        named, reasons = ",".join(map(str, devices)), _why("onnxruntime", obstacles)
        raise EngineError(
            f"--devices {named} names GPUs, and {package.folder} has no {precision} engines that all of them can run "
            f"({reasons}): build them with `{build_command(package, 'tensorrt', precision)}`, or leave --devices out."
        )
    return (chosen, _why(chosen, obstacles)) if chosen else choose_backend("auto")


def _refuse_to_pass_over(package: Package, backend: str, precision: str, devices: Sequence[int], obstacle: str) -> None:
    for gpu in find_gpus():
        if gpu.index in devices and engine_folder(package, backend, precision, gpu.capability).is_dir():
            mend = build_command(package, backend, precision, gpu.capability, gpu.index)
            raise EngineError(f"{obstacle}: build it again with `{mend}`, or say --backend onnxruntime.")


def is_installed(module: str) -> bool:
    """Whether Python would find a module; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # it was imported already and does not say from where
        return True


def missing_for_native(builds: bool = True) -> str:
    """The module that natively compiled engines, or building them, need and that is not here; empty where all are."""
    needed = ("llvmlite", "onnx") if builds else ("llvmlite",)
    return next((module for module in needed if not is_installed(module)), "")


def find_version(name: str) -> str | None:
    """The version of a backend that is installed, or None; it is not imported."""
    if not is_installed(_MODULES[name]):
        return None
    for distribution in _DISTRIBUTIONS[name]:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown version"


def backend_module(name: str) -> Any:
    """A backend's Python module, imported. Raises EngineError where that fails."""
    try:
        return importlib.import_module(_MODULES[name])
    except (ImportError, OSError) as error:
        raise EngineError(f"The module {_MODULES[name]} cannot be imported ({error}): install it anew.") from None


def loaded_version(name: str) -> str:
    """The version that a backend's module itself tells, which is what sidecars hold. For machines with a GPU only."""
    return str(getattr(backend_module(name), "__version__", "unknown"))


def _found(name: str) -> dict[str, Backend]:
    if name != "auto" and name not in BACKENDS:
        raise InputError(f"There is no backend {name!r}: choose auto or one of {', '.join(BACKENDS)}.")
    found = find_backends()
    if name != "auto" and found[name].version is None:
        raise EngineError(f"The backend {name} is not installed: {found[name].install}.")
    return found


def _obstacle(name: str, version: str | None, gpus: list[Gpu], problems: list[str]) -> str:
    """What keeps a backend from running engines here; empty where nothing does."""
    if version is None:
        return "not installed"
    if name == "onnxruntime":
        return ""
    if not gpus:
        return problems[0]
    if name == "tensorrt-rtx" and not any(_rtx_supports(gpu) for gpu in gpus):
        return f"does not support {' or '.join(sorted({f'{gpu.name} ({gpu.capability})' for gpu in gpus}))}"
    if not is_installed("pycuda"):
        return "pycuda is not installed"
    return ""


def _rtx_supports(gpu: Gpu) -> bool:
    return gpu.capability in _RTX_CAPABILITIES or gpu.capability.split(".")[0] in _RTX_MAJORS


def _install(name: str, gpus: list[Gpu]) -> str:
    if name == "onnxruntime":
        return "pip install onnxruntime"
    if name == "tensorrt-rtx":
        return "pip install '.[rtx]' in the checkout"
    # the plain package brings the newest CUDA's libraries, which an older driver does not run
    return (
        f"pip install tensorrt-cu{gpus[0].driver.split('.')[0]}"
        if gpus
        else "pip install '.[tensorrt]' in the checkout"
    )


def _why(chosen: str, obstacles: dict[str, str]) -> str:
    """Why those that are preferred to `chosen` were not taken."""
    better = [f"{name}: {obstacles[name]}" for name in _PREFERRED[: _PREFERRED.index(chosen)]]
    return "; ".join(better) or "a GPU and all that it needs are here"


def _engine_obstacle(package: Package, backend: str, precision: str, devices: Sequence[int]) -> str:
    """Why the package's engines of this backend and precision cannot be used on these GPUs; empty where they can."""
    if SUFFIXES[backend] != ".plan":
        return _none_usable(package, backend, precision, None)
    gpus = {gpu.index: gpu for gpu in find_gpus()}
    for device in devices:
        reason = _none_usable(package, backend, precision, gpus[device]) if device in gpus else f"no GPU {device} here"
        if reason:
            return reason
    return ""


def _none_usable(package: Package, backend: str, precision: str, gpu: Gpu | None) -> str:
    """Why no folder of engines can be used on `gpu` (None: on the CPU); empty where one can."""
    reasons = []
    for folder in engine_folders(package, backend, precision, gpu.capability if gpu else None):
        reason = _unusable(package, backend, precision, folder, gpu)
        if not reason:
            return ""
        reasons.append(reason)
    return reasons[0] if reasons else f"no {precision} engine in the package"


def _unusable(package: Package, backend: str, precision: str, folder: Path, gpu: Gpu | None) -> str:
    """Why the engines in one folder, of the parts that running needs, cannot be used."""
    for part in ("stem", "trunk") if package.manifest.cut else ("model",):
        path = engine_file(folder, part, backend)
        if not path.with_suffix(".json").is_file():
            return f"{folder.name} has no {part}"
        try:
            sidecar = read_sidecar(path)
            reason = refusal(path, sidecar, package, part, precision)
            if reason is None and gpu is not None:
                reason = plan_refusal(path, sidecar, gpu, loaded_version(backend))
        except EngineError as error:
            reason = str(error)
        if reason:
            return f"{folder.name}/{path.name} cannot be used, {reason}"
    return ""
