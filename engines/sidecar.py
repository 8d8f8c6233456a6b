"""Where engines lie and the JSON file beside each, which says what the engine is valid for.

<package>/engines/onnxruntime-fp32/trunk.onnx           and trunk.json, and trunk.weights if it has large ones
                                                       compiled natively: trunk.native, model.native
<package>/engines/tensorrt-rtx-sm89-fp32/trunk.plan     and trunk.json
<package>/engines/tensorrt-sm89-fp32/trunk.plan         and trunk.json
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from splitmerge.errors import EngineError, InputError
from splitmerge.files import read_json, sha256_of, write_json
from splitmerge.package import Package

__all__ = [
    "FORMAT",
    "NATIVE",
    "SUFFIXES",
    "Sidecar",
    "build_command",
    "bytes_of",
    "engine_file",
    "engine_folder",
    "engine_folders",
    "read_sidecar",
    "refusal",
    "weights_beside",
    "write_sidecar",
]

FORMAT = 1
_TEXTS = ("backend", "version", "part", "precision", "engine_sha256", "graph_sha256", "preprocessing_sha256")
SUFFIXES = {"onnxruntime": ".onnx", "tensorrt": ".plan", "tensorrt-rtx": ".plan"}
NATIVE = ".native"
"""Of a part that is compiled natively (`engines.native`), beside others of onnxruntime."""


@dataclass(frozen=True)
class Sidecar:
    """What an engine was made from and for.

    `machine` is compared with the machine at hand when the engine is loaded; `build` (seconds, flags, profiles, layers)
    is for people. `weights_sha256` is of the file with the engine's weights; None where the engine holds them itself.
    """

    backend: str
    version: str
    part: str
    precision: str
    engine_sha256: str
    graph_sha256: str
    preprocessing_sha256: str
    machine: Mapping[str, Any]
    build: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT
    weights_sha256: str | None = None


def engine_folder(package: Package, backend: str, precision: str, capability: str | None = None) -> Path:
    """Folder of one build. Plans for GPUs lie in a folder that names their compute `capability` ("8.9").

    Raises ValueError for a plan's folder without one.
    """
    if capability is None and SUFFIXES[backend] == ".plan":
        raise ValueError(f"Engines for {backend} lie in a folder named by a compute capability, and none was given.")
    target = f"-sm{capability.replace('.', '')}" if capability else ""
    return package.engines_folder / f"{backend}{target}-{precision}"


def engine_folders(package: Package, backend: str, precision: str, capability: str | None = None) -> list[Path]:
    """Folders that hold engines of this backend and precision: first the one for `capability`, then others by name.

    A plan of another capability's folder may run here if it was built hardware compatible.
    """
    if SUFFIXES[backend] != ".plan":
        folders = [engine_folder(package, backend, precision)]
    else:
        folders = sorted(package.engines_folder.glob(f"{backend}-sm[0-9]*-{precision}"))
        if capability:
            first = engine_folder(package, backend, precision, capability)
            folders = [first, *(folder for folder in folders if folder != first)]
    return [folder for folder in folders if folder.is_dir()]


def engine_file(folder: Path, part: str, backend: str) -> Path:
    """The engine of a part in a folder of engines, whether it is there or not."""
    native = folder / (part + NATIVE)
    return native if backend == "onnxruntime" and native.is_file() else folder / (part + SUFFIXES[backend])


def build_command(
    package: Package, backend: str, precision: str, capability: str | None = None, device: int | None = None
) -> str:
    """The command that makes an engine anew: for the GPU `device`, or for those of a compute `capability`.

    TensorRT builds only for a GPU that is there; TensorRT-RTX for any, so that it need not be.
    """
    command = f"splitmerge build --package {shlex.quote(str(package.folder))} --backend {backend}"
    if backend == "tensorrt-rtx" and capability:
        command += f" --compute-capability {capability}"
    elif SUFFIXES[backend] == ".plan" and device:  # left out, build takes one GPU of each kind, and GPU 0 is among them
        command += f" --device {device}"
    return f"{command} --precision {precision}"


def weights_beside(engine: Path) -> Path:
    """The file with the weights of the engine file `engine`, if they are not in that."""
    return engine.with_suffix(".weights")


def bytes_of(engine: Path) -> int:
    """What the engine file `engine` and that with its weights take."""
    return sum(path.stat().st_size for path in (engine, weights_beside(engine)) if path.is_file())


def write_sidecar(engine: Path, sidecar: Sidecar) -> None:
    """Write the JSON file beside `engine`."""
    write_json(engine.with_suffix(".json"), asdict(sidecar))


def read_sidecar(engine: Path) -> Sidecar:
    """The sidecar of the engine file `engine`. Raises EngineError where there is none that can be understood."""
    path = engine.with_suffix(".json")
    try:
        value = read_json(path)
        if not isinstance(value, dict):
            raise InputError("it is no JSON object")
        sidecar = Sidecar(**value)
    except (InputError, TypeError) as error:
        raise EngineError(f"{path} does not describe an engine ({error}): build the engine again.") from None
    for name in _TEXTS if sidecar.weights_sha256 is None else (*_TEXTS, "weights_sha256"):
        if not isinstance(value[name], str):
            raise EngineError(f"{path} does not describe an engine (its {name} is no text): build the engine again.")
    for name in ("machine", "build"):
        if not isinstance(getattr(sidecar, name), dict):
            raise EngineError(f"{path} does not describe an engine (it names no {name}): build the engine again.")
    return sidecar


def refusal(engine: Path, sidecar: Sidecar, package: Package, part: str, precision: str) -> str | None:
    """Why the engine file does not belong to the package's graph; None where it does.

    This is what can be told on any machine; each backend adds what it knows of versions and machines.
    """
    if sidecar.format != FORMAT:
        return f"its description has format {sidecar.format} and this splitmerge reads {FORMAT}"
    home = re.fullmatch(rf"(.+?)(-sm\d+)?-{re.escape(precision)}", engine.parent.name)
    if home is None or home[1] != sidecar.backend:  # each backend is only ever handed what was built for it
        return f"it is an engine for {sidecar.backend}, not for {home[1] if home else engine.parent.name}"
    if (sidecar.part, sidecar.precision) != (part, precision):
        return f"it is a {sidecar.precision} {sidecar.part} and a {precision} {part} is expected"
    graph = package.parts(precision).get(part)
    if graph is None:
        return f"the package has no {precision} {part}"
    graphs = [graph]
    if precision == "fp32" and sidecar.backend == "onnxruntime" and part in package.manifest.cpu:
        graphs.append(package.manifest.cpu[part])
    if sidecar.graph_sha256 not in [one.sha256 for one in graphs]:
        return "it was built from another graph than the package holds now"
    if sidecar.preprocessing_sha256 != package.manifest.preprocessing_sha256:
        return "it was built for frames of another size or normalisation"
    for file, sha256 in _files(engine, sidecar).items():
        named = "the file" if file == engine else f"{file.name}, which has its weights,"
        if not file.is_file():
            return f"{named} is missing"
        if file != engine and file.is_symlink():
            return f"{named} is a link, which ONNX Runtime may not follow: put the file itself there"
        if sha256 != sha256_of(file):  # a plan is code that will run: only what was built may be loaded
            return f"{named} was altered after it was built"
    return None


def _files(engine: Path, sidecar: Sidecar) -> dict[Path, str | None]:
    """What was built, with the hashes it had then; None for weights that were not."""
    files: dict[Path, str | None] = {engine: sidecar.engine_sha256}
    weights = weights_beside(engine)
    if sidecar.weights_sha256 is not None or weights.exists():
        files[weights] = sidecar.weights_sha256
    return files
