"""The engines that lie in a package, and whether each can still be used."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engines.backends import find_version, loaded_version
from engines.load import cpu_refusal
from engines.machine import Gpu, ask_driver
from engines.plan import description_refusal, plan_refusal
from engines.sidecar import NATIVE, SUFFIXES, Sidecar, bytes_of, read_sidecar, refusal
from splitmerge.errors import EngineError, PackageError
from splitmerge.package import Package

__all__ = ["FoundEngine", "list_engines"]


@dataclass(frozen=True)
class FoundEngine:
    """An engine file.

    `problem` says why it cannot be used anywhere; None where nothing speaks against it. `gpus` has for each GPU here,
    by name, why a plan cannot run on it, or None where it can. `convolutions` counts them by the type they compute in.
    """

    path: Path
    size: int
    target: str
    problem: str | None
    gpus: Mapping[str, str | None] = field(default_factory=dict)
    convolutions: Mapping[str, int] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """Whether it can be used, in words."""
        if self.problem:
            return f"cannot be used, {self.problem}"
        if self.path.suffix in (SUFFIXES["onnxruntime"], NATIVE):
            return "valid"
        if not self.gpus:
            return "made from this package, and there is no GPU here to run it"
        return "; ".join(
            f"cannot be used on {gpu}, {reason}" if reason else f"valid on {gpu}" for gpu, reason in self.gpus.items()
        )


def list_engines(package: Package) -> list[FoundEngine]:
    """All engines of a package, by folder and part."""
    paths = sorted(package.engines_folder.glob("*/*")) if package.engines_folder.is_dir() else []
    whole = [path for path in paths if not path.parent.name.startswith(".")]  # hidden ones are still being built
    gpus, _ = ask_driver()
    return [_found(package, path, gpus) for path in whole if path.suffix in (*SUFFIXES.values(), NATIVE)]


def _found(package: Package, path: Path, gpus: list[Gpu]) -> FoundEngine:
    size = bytes_of(path)
    try:
        sidecar = read_sidecar(path)
        problem = refusal(path, sidecar, package, path.stem, sidecar.precision) or _problem_anywhere(path, sidecar)
    except (EngineError, PackageError) as error:
        return FoundEngine(path, size, "unknown", str(error))
    capability = sidecar.machine.get("capability")
    target = f"{sidecar.backend} {sidecar.version}" + (f", compute capability {capability}" if capability else "")
    verdicts = {}
    if path.suffix == ".plan" and problem is None:
        verdicts = {f"GPU {gpu.index} ({gpu.name})": _problem_on(path, sidecar, gpu) for gpu in gpus}
    return FoundEngine(path, size, target, problem, verdicts, _convolutions(sidecar))


def _problem_anywhere(path: Path, sidecar: Sidecar) -> str | None:
    if path.suffix == ".plan":
        return description_refusal(path, sidecar)
    return cpu_refusal(path, sidecar)


def _problem_on(path: Path, sidecar: Sidecar, gpu: Gpu) -> str | None:
    if find_version(sidecar.backend) is None:
        return f"{sidecar.backend} is not installed"
    try:
        return plan_refusal(path, sidecar, gpu, loaded_version(sidecar.backend))
    except EngineError as error:
        return str(error)


def _convolutions(sidecar: Sidecar) -> dict[str, int]:
    """What the sidecar says of the types that convolutions compute in."""
    told = sidecar.build.get("convolutions")
    pairs = told.items() if isinstance(told, dict) else ()
    return {kind: count for kind, count in pairs if isinstance(count, int)}
