"""Ranges from the cache, or collected and put there."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from calibration.cache import Calibration, Made, ranges_from_collected, read_cache, write_cache
from calibration.collect import collect, state_path
from calibration.images import Images
from calibration.recipes import Models
from splitmerge.errors import InputError
from splitmerge.package import Package

__all__ = ["RangesSource", "default_cache"]


def default_cache(package: Package) -> Path:
    """Where the calibration cache lies unless the user names a file."""
    return package.folder / "calibration-cache.json"


@dataclass(frozen=True)
class RangesSource:
    """Gives ranges of the package's graphs, or of others with the same tensors.

    A cache that the user has named (`named`) is refused where it does not fit; the package's own is made anew then,
    and `say` is told why.
    """

    package: Package
    images: Images
    made: Made
    cache: Path
    named: bool
    say: Callable[[str], None]
    progress: bool = True

    def ranges(self) -> Calibration:
        """Of the package's float32 graphs. Raises InputError for a named cache that is of something else."""
        return self._ranges(self.made, self.cache, None)

    def equalised(self, models: Models) -> Calibration:
        """Of equalised graphs, which have a cache beside the other."""
        graphs = {p: sha256(m.SerializeToString(deterministic=True)).hexdigest() for p, m in models.items()}
        cache = self.cache.with_name(f"{self.cache.stem}-equalised{self.cache.suffix}")
        return self._ranges(replace(self.made, graphs=graphs), cache, models)

    def _ranges(self, made: Made, cache: Path, models: Models | None) -> Calibration:
        if cache.exists():
            try:
                found = read_cache(cache, made)
                self.say(f"ranges: {cache}, made from the same graphs and images")
                return found
            except InputError as error:
                if self.named and models is None:
                    raise
                self.say(f"ranges are collected anew: {error}")
        state = state_path(self.package)
        collected = collect(self.package, self.images, progress=self.progress, resume=state, models=models)
        calibration = ranges_from_collected(made, collected)
        write_cache(cache, calibration)
        resumed = f" (the first {collected.resumed_from} before it was interrupted)" if collected.resumed_from else ""
        words = f"{len(calibration.tensors)} tensors over {collected.images} images of {made.data}{resumed}"
        self.say(f"ranges: {words} -> {cache}")
        zero = [name for name, seen in calibration.tensors.items() if seen.minimum == seen.maximum == 0]
        if zero:
            self.say(f"always 0 in these images, so that nothing is known of their range: {', '.join(zero)}")
        return calibration
