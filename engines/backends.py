"""Which backends this machine has, and which one `auto` means."""

import importlib.metadata
import importlib.util
from dataclasses import dataclass

from splitmerge.errors import EngineError, InputError

__all__ = ["BACKENDS", "Backend", "choose_backend", "find_backends"]

BACKENDS = ("onnxruntime", "tensorrt", "tensorrt-rtx")

_MODULES = {"onnxruntime": "onnxruntime", "tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_INSTALL = {
    "onnxruntime": "pip install onnxruntime",
    "tensorrt": "pip install tensorrt",
    "tensorrt-rtx": "pip install '.[rtx]' in the checkout",
}
_DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt-rtx": ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"),
}


@dataclass(frozen=True)
class Backend:
    """One backend as found here. `version` is None where it is not installed; `install` is what to type then."""

    name: str
    version: str | None
    builds: bool
    runs: bool
    install: str


def find_backends() -> dict[str, Backend]:
    """All backends. Nothing is imported: a TensorRT without its driver may not survive that."""
    found = {}
    for name in BACKENDS:
        installed = importlib.util.find_spec(_MODULES[name]) is not None
        version = _version(name) if installed else None
        runs = installed and name == "onnxruntime"  # running TensorRT plans is not written yet
        found[name] = Backend(name, version, builds=installed, runs=runs, install=_INSTALL[name])
    return found


def choose_backend(name: str) -> tuple[str, str]:
    """The backend that `name` (one of BACKENDS, or `auto`) means here, and why.

    Raises InputError for other names and EngineError where it is not installed.
    """
    if name != "auto" and name not in BACKENDS:
        raise InputError(f"There is no backend {name!r}: choose auto or one of {', '.join(BACKENDS)}.")
    found = find_backends()
    if name == "auto":
        return _auto(found)
    if found[name].version is None:
        raise EngineError(f"The backend {name} is not installed: {found[name].install}.")
    return name, "asked for"


def _auto(found: dict[str, Backend]) -> tuple[str, str]:
    if not found["onnxruntime"].runs:
        raise EngineError(f"No backend that runs engines is installed: {found['onnxruntime'].install}.")
    others = [backend.name for backend in found.values() if backend.builds and not backend.runs]
    if others:
        return "onnxruntime", f"{' and '.join(others)} can build engines here, but only onnxruntime runs them so far"
    return "onnxruntime", "it is the only backend installed"


def _version(name: str) -> str:
    for distribution in _DISTRIBUTIONS[name]:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown version"
