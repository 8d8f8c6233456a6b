"""Where engines lie and the JSON file beside each, which says what the engine is valid for.

<package>/engines/onnxruntime-fp32/trunk.onnx           and trunk.json
<package>/engines/tensorrt-rtx-sm89-fp32/trunk.plan     and trunk.json
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from splitmerge.errors import EngineError, InputError
from splitmerge.files import read_json, sha256_of, write_json
from splitmerge.package import Package

__all__ = [
    "FORMAT",
    "SUFFIXES",
    "Sidecar",
    "build_command",
    "engine_folder",
    "read_sidecar",
    "refusal",
    "write_sidecar",
]

FORMAT = 1
SUFFIXES = {"onnxruntime": ".onnx", "tensorrt": ".plan", "tensorrt-rtx": ".plan"}


@dataclass(frozen=True)
class Sidecar:
    """What an engine was made from and for.

    `machine` is compared with the machine at hand when the engine is loaded; `build` (seconds, flags, profiles, layers)
    is for people.
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


def engine_folder(package: Package, backend: str, precision: str, capability: str | None = None) -> Path:
    """Folder of one build. `capability` ("8.9") is a GPU's, of engines built ahead of time for it."""
    target = f"-sm{capability.replace('.', '')}" if capability else ""
    return package.engines_folder / f"{backend}{target}-{precision}"


def build_command(package: Package, backend: str, precision: str) -> str:
    """The command that makes an engine anew."""
    return f"splitmerge build --package {package.folder} --backend {backend} --precision {precision}"


def write_sidecar(engine: Path, sidecar: Sidecar) -> None:
    """Write the JSON file beside `engine`."""
    write_json(engine.with_suffix(".json"), asdict(sidecar))


def read_sidecar(engine: Path) -> Sidecar:
    """The sidecar of the engine file `engine`. Raises EngineError where there is none that can be understood."""
    path = engine.with_suffix(".json")
    try:
        sidecar = Sidecar(**read_json(path))
    except (InputError, TypeError) as error:
        raise EngineError(f"{path} does not describe an engine ({error}): build the engine again.") from None
    if not isinstance(sidecar.machine, dict):
        raise EngineError(f"{path} does not describe an engine (it names no machine): build the engine again.")
    return sidecar


def refusal(engine: Path, sidecar: Sidecar, package: Package, part: str, precision: str) -> str | None:
    """Why the engine file does not belong to the package's graph; None where it does.

    This is what can be told on any machine; each backend adds what it knows of versions and machines.
    """
    if sidecar.format != FORMAT:
        return f"its description has format {sidecar.format} and this splitmerge reads {FORMAT}"
    if (sidecar.part, sidecar.precision) != (part, precision):
        return f"it is a {sidecar.precision} {sidecar.part} and a {precision} {part} is expected"
    if sidecar.graph_sha256 != package.parts(precision)[part].sha256:
        return "it was built from another graph than the package holds now"
    if sidecar.preprocessing_sha256 != package.manifest.preprocessing_sha256:
        return "it was built for frames of another size or normalisation"
    if not engine.is_file():
        return "the file is missing"
    if sidecar.engine_sha256 != sha256_of(engine):
        return "the file was altered after it was built"
    return None
