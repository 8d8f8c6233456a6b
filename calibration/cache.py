"""The calibration cache: what was measured and on what, as JSON that a person can read; never used for anything else.

{
  "format": 1,
  "made": {"graphs": {part: SHA-256}, "data": name, "data_sha256", "images", "methods", "versions"},
  "tensors": {name: {"minimum", "maximum", "zeros" (share, 0..1), "thresholds": {method: value}}},
  "same_as": {other tensor: name},    tensors of the graphs that hold the same values, reshaped or transposed
  "channels": {name: {"ranges": [largest |x| of each], "means": [...]}}
}
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from calibration.collect import Collected
from calibration.images import DataHash
from calibration.ranges import METHODS, check_methods, thresholds
from splitmerge import __version__
from splitmerge.errors import InputError
from splitmerge.files import read_json, write_json
from splitmerge.package import Package

__all__ = [
    "FORMAT",
    "Calibration",
    "Channels",
    "Made",
    "Observed",
    "made_from",
    "ranges_from_collected",
    "read_cache",
    "write_cache",
]

FORMAT = 1
_T = TypeVar("_T")


@dataclass(frozen=True)
class Made:
    """What a calibration is made from: float32 graphs' SHA-256 by part, the images' pixels, methods and versions."""

    graphs: Mapping[str, str]
    data: str
    data_sha256: str
    images: int
    methods: tuple[str, ...]
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Observed:
    """What a tensor was seen to hold: smallest and largest value, share of zeros (0..1), thresholds by method."""

    minimum: float
    maximum: float
    zeros: float
    thresholds: Mapping[str, float]


@dataclass(frozen=True)
class Channels:
    """The largest |x| and the mean of each channel (axis 1) of a tensor, in the order of channels."""

    ranges: tuple[float, ...]
    means: tuple[float, ...]


@dataclass(frozen=True)
class Calibration:
    """Ranges of a package's tensors by several methods, and what they were made from."""

    made: Made
    tensors: Mapping[str, Observed]
    same_as: Mapping[str, str]
    channels: Mapping[str, Channels]

    def by_tensor(self, method: str) -> dict[str, float]:
        """The thresholds by one method, above 0, for every tensor of stem, trunk and model whose range is known.

        Raises InputError for a method that was not calibrated with.
        """
        if method not in self.made.methods:
            have = ", ".join(self.made.methods)
            raise InputError(f"The ranges were made by {have}, and {method} was asked for: calibrate with it.")
        own = {name: observed.thresholds[method] for name, observed in self.tensors.items()}
        return self._everywhere(own)

    def channel_ranges(self) -> dict[str, NDArray[np.float64]]:
        """The largest |x| of each channel `[C]`, for the tensors of `by_tensor`; of a moved one as before that."""
        return self._everywhere({name: np.array(channels.ranges) for name, channels in self.channels.items()})

    def channel_means(self) -> dict[str, NDArray[np.float64]]:
        """The mean of each channel `[C]`, for the same tensors."""
        return self._everywhere({name: np.array(channels.means) for name, channels in self.channels.items()})

    def _everywhere(self, own: dict[str, _T]) -> dict[str, _T]:
        return own | {name: own[collected] for name, collected in self.same_as.items()}


def made_from(package: Package, data: str, images: DataHash, methods: Iterable[str] = METHODS) -> Made:
    """What a calibration of `package` with these images, here and now, is made from."""
    graphs = {part: graph.sha256 for part, graph in package.parts("fp32").items()}
    versions = {"splitmerge": __version__, "onnxruntime": onnxruntime.__version__}
    return Made(graphs, data, images.sha256, images.images, check_methods(methods), versions)


def ranges_from_collected(made: Made, collected: Collected) -> Calibration:
    """Compute the thresholds by all of `made.methods`. Raises InputError where the images collected are others."""
    if (made.data_sha256, made.images) != (collected.data_sha256, collected.images):
        raise InputError(
            f"{made.data} changed while it was read ({made.images} images with SHA-256 {made.data_sha256[:12]}... "
            f"before, {collected.images} with {collected.data_sha256[:12]}... now): calibrate again."
        )
    tensors = {
        name: Observed(s.minimum, s.maximum, s.zeros / s.count, thresholds(s, made.methods))
        for name, s in collected.statistics.items()
    }
    channels = {
        name: Channels(tuple(s.channel_ranges.tolist()), tuple(s.channel_means.tolist()))
        for name, s in collected.statistics.items()
    }
    others = {name: tensor for name, tensor in collected.same_as.items() if name != tensor}
    return Calibration(made, tensors, others, channels)


def write_cache(path: Path, calibration: Calibration) -> None:
    """Write the cache, whole or not at all. Raises InputError where it cannot be written."""
    write_json(path, {"format": FORMAT, **asdict(calibration)})


def read_cache(path: Path, made: Made) -> Calibration:
    """The calibration in `path`, if it was made from the same graphs, pixels and versions, and has `made.methods`.

    Raises InputError with what is different where that is not so, and where the file is no cache or is damaged.
    """
    value = read_json(path)
    if not isinstance(value, dict) or not isinstance(value.get("format"), int) or "same_as" not in value:
        raise InputError(f"{path} is no calibration cache: name another file, or take it away to calibrate anew.")
    if value["format"] != FORMAT:
        raise InputError(
            f"{path} has format {value['format']} and this splitmerge reads {FORMAT}: take it away to calibrate anew."
        )
    try:
        cached = _calibration(value)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} lacks or misstates {error}: take it away to calibrate anew.") from None
    difference = _difference(cached.made, made)
    if difference:
        raise InputError(f"{path} is not for this calibration: {difference}; name another file, or take it away.")
    return cached


def _difference(cached: Made, asked: Made) -> str | None:
    for part in sorted({*cached.graphs, *asked.graphs}):
        if cached.graphs.get(part) != asked.graphs.get(part):
            return f"it was made for another {part} graph"
    if cached.images != asked.images:
        return f"it was made from {cached.images} images of {cached.data} and {asked.images} are given"
    if cached.data_sha256 != asked.data_sha256:
        return f"it was made from other images ({cached.data}) than those of {asked.data}"
    missing = [method for method in asked.methods if method not in cached.methods]
    if missing:
        return f"it has the methods {', '.join(cached.methods)} and not {missing[0]}"
    for name in sorted({*cached.versions, *asked.versions}):
        if cached.versions.get(name) != asked.versions.get(name):
            have, here = cached.versions.get(name, "none"), asked.versions.get(name, "none")
            return f"it was made with {name} {have} and here is {here}"
    return None


def _calibration(value: Mapping[str, Any]) -> Calibration:
    made = Made(**{**value["made"], "methods": tuple(value["made"]["methods"])})
    tensors = {name: Observed(**observed) for name, observed in value["tensors"].items()}
    for name, observed in tensors.items():
        for method in made.methods:
            threshold = observed.thresholds[method]
            if not (isinstance(threshold, float | int) and isfinite(threshold) and threshold > 0):
                raise ValueError(f"the {method} threshold {threshold!r} of {name}")
    unknown = set(value["same_as"].values()) - set(tensors)
    if unknown:
        raise ValueError(f"the tensor {min(unknown)!r}")
    channels = {name: _channels(value["channels"][name]) for name in tensors}
    return Calibration(made, tensors, value["same_as"], channels)


def _channels(value: Mapping[str, Any]) -> Channels:
    return Channels(tuple(map(float, value["ranges"])), tuple(map(float, value["means"])))
