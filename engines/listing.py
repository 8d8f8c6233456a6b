"""The engines that lie in a package, and whether each can still be used."""

from dataclasses import dataclass
from pathlib import Path

from engines.load import reason_invalid
from engines.sidecar import SUFFIXES, read_sidecar
from splitmerge.errors import EngineError, PackageError
from splitmerge.package import Package

__all__ = ["FoundEngine", "list_engines"]


@dataclass(frozen=True)
class FoundEngine:
    """An engine file. `problem` says why it cannot be used; None where nothing speaks against it."""

    path: Path
    size: int
    target: str
    problem: str | None

    @property
    def verdict(self) -> str:
        """What can be said of it where there is no problem."""
        if self.path.suffix == SUFFIXES["onnxruntime"]:
            return "valid"
        return "made from this package, but its backend cannot be run yet"


def list_engines(package: Package) -> list[FoundEngine]:
    """All engines of a package, by folder and part."""
    paths = sorted(package.engines_folder.glob("*/*")) if package.engines_folder.is_dir() else []
    whole = [path for path in paths if not path.parent.name.startswith(".")]  # hidden ones are still being built
    return [_found(package, path) for path in whole if path.suffix in SUFFIXES.values()]


def _found(package: Package, path: Path) -> FoundEngine:
    size = path.stat().st_size
    try:
        sidecar = read_sidecar(path)
        problem = reason_invalid(path, sidecar, package, path.stem, sidecar.precision)
    except (EngineError, PackageError) as error:
        return FoundEngine(path, size, "unknown", str(error))
    capability = sidecar.machine.get("capability")
    target = f"{sidecar.backend} {sidecar.version}" + (f", compute capability {capability}" if capability else "")
    return FoundEngine(path, size, target, problem)
