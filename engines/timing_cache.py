"""What TensorRT measured while it chose kernels, kept for the next build, which is quicker then and chooses alike.

A cache is bound to a TensorRT version and a GPU, which its file does not tell. So a JSON file lies beside it:

<package>/engines/timing/tensorrt-10.3.0-sm89-NVIDIA-L4.cache     and ...cache.json

TensorRT-RTX measures nothing while it builds; its timing cache does nothing but need a GPU.
"""

import hashlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from engines.machine import Gpu
from splitmerge.errors import EngineError, InputError
from splitmerge.files import new_file, read_json, write_json

__all__ = ["CacheOwner", "TimingCache", "cache_for"]

_FORMAT = 1


@dataclass(frozen=True)
class CacheOwner:
    """What the measurements hold for. `version` is the backend's, `gpu` its name, `capability` as "8.9"."""

    backend: str
    version: str
    gpu: str
    capability: str

    def __str__(self) -> str:
        return f"{self.backend} {self.version} on {self.gpu} ({self.capability})"


@dataclass(frozen=True)
class TimingCache:
    """A cache file. One that the user named is refused where it does not fit; the default one is begun anew."""

    path: Path
    owner: CacheOwner
    named: bool

    def read(self) -> tuple[bytes, list[str]]:
        """Its contents, empty for a new one, and notes for the user. Raises EngineError for a named one that does not
        fit.
        """
        if not self.path.exists() and not self._description.exists():
            return b"", []
        problem = self._problem()
        if problem is None:
            return self.path.read_bytes(), []
        if self.named:
            raise EngineError(f"The timing cache {self.path} cannot be used, {problem}: name another, or delete it.")
        return b"", [f"timing cache begun anew ({problem})"]

    def write(self, contents: bytes) -> str:
        """Put `contents` in its place and give their SHA-256."""
        sha256 = hashlib.sha256(contents).hexdigest()
        with new_file(self.path) as temporary:
            temporary.write_bytes(contents)
        write_json(self._description, {"format": _FORMAT, **asdict(self.owner), "sha256": sha256})
        return sha256

    @property
    def _description(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    def _problem(self) -> str | None:
        try:
            value = read_json(self._description)
        except InputError:
            return f"it has no description that can be read in {self._description.name}"
        try:
            owner = CacheOwner(**{key: str(value[key]) for key in asdict(self.owner)})
            sha256 = value["sha256"]
        except (KeyError, TypeError):
            return f"{self._description.name} does not say what it was measured on"
        if owner != self.owner:
            return f"it was measured with {owner} and this is {self.owner}"
        if not self.path.is_file() or hashlib.sha256(self.path.read_bytes()).hexdigest() != sha256:
            return "it was altered after it was written"
        return None


def cache_for(
    path: Path | None, folder: Path | None, backend: str, version: str, gpu: Gpu | None
) -> TimingCache | None:
    """The cache of a build on `gpu`: the one at `path`, or the default one in `folder`; None where there is none.

    Raises InputError where one is named and the build measures nothing.
    """
    if backend != "tensorrt" or gpu is None:
        if path is not None:
            raise InputError(
                f"{backend} measures nothing while it builds and keeps no timing cache: leave out --timing-cache "
                f"{path}."
            )
        return None
    owner = CacheOwner(backend, version, gpu.name, gpu.capability)
    if path is not None:
        return TimingCache(path, owner, named=True)
    return _default(folder, owner) if folder else None


def _default(folder: Path, owner: CacheOwner) -> TimingCache:
    gpu = re.sub(r"[^A-Za-z0-9]+", "-", owner.gpu).strip("-")
    name = f"{owner.backend}-{owner.version}-sm{owner.capability.replace('.', '')}-{gpu}.cache"
    return TimingCache(folder / name, owner, named=False)
