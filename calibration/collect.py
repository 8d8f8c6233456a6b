"""Runs a package's float32 graphs over images and keeps statistics of what convolutions and residual additions read.

The stem runs on the whole frame, the trunk split batch by split batch, as in a stream; a package without a cut runs
whole. Memory does not depend on the number of images, and on their size only as a stream's does.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

from calibration.images import DataHash, Images
from calibration.segments import SEGMENT_BYTES, SegmentedGraph
from calibration.state import State, read_state, write_state
from calibration.statistics import BINS, TensorStatistics
from calibration.taps import Taps, taps_of
from splitmerge.errors import InputError
from splitmerge.package import Package

__all__ = ["SAVE_EVERY", "Collected", "collect", "state_path"]

SAVE_EVERY = 8
"""Images between two states: what a killed collection does again at most. Ctrl-C loses the image it was at."""

Seen = Callable[[int, Mapping[str, TensorStatistics]], None]
_Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class Collected:
    """Statistics by the collected tensors' names. `same_as` gives for every tensor of the package's graphs whose range
    is known (all parts, reshaped and transposed ones, too) the name under which it was collected.

    `resumed_from` is how many of the `images` an interrupted collection had done.
    """

    statistics: Mapping[str, TensorStatistics]
    same_as: Mapping[str, str]
    images: int
    data_sha256: str
    resumed_from: int = 0


def state_path(package: Package) -> Path:
    """Where the state of an interrupted collection is kept unless the user says otherwise."""
    return package.folder / "calibration-state.npz"


def collect(
    package: Package,
    images: Images,
    tensors: Iterable[str] | None = None,
    progress: bool = True,
    resume: Path | None = None,
    seen: Seen | None = None,
    save_every: int = SAVE_EVERY,
    segment_bytes: int = SEGMENT_BYTES,
    models: Mapping[str, onnx.ModelProto] | None = None,
) -> Collected:
    """Collect statistics of `tensors` (inputs of convolutions and residual additions where None) over all images.

    `models` by part take the place of the package's own float32 graphs: the same network with other weights, say.
    With a file `resume`, the state is saved there every `save_every` images and on Ctrl-C, and taken up again if
    graphs, tensors and the images so far are the same; a finished collection removes it. `seen(count, statistics)` is
    called after each image. Raises InputError for tensors that do not exist, images that cannot be used and values that
    are not finite, EngineError where ONNX Runtime fails.
    """
    models = models or {part: onnx.load(package.path(graph)) for part, graph in package.parts("fp32").items()}
    taps = taps_of(models, package.manifest.cut, tensors)
    network = _Network(package, models, taps, segment_bytes)
    hashes = {part: sha256(model.SerializeToString(deterministic=True)).hexdigest() for part, model in models.items()}
    key = {"graphs": hashes, "tensors": taps.names, "bins": BINS, "onnxruntime": onnxruntime.__version__}
    frames, digest, state = _begin(images, resume, key, taps)
    done = state.images
    try:
        with tqdm(total=len(images), initial=done, unit="image", disable=None if progress else True) as bar:
            for frame in frames:
                statistics = {name: s.copy() for name, s in state.statistics.items()}
                network.look_at(frame, statistics, f"image {state.images + 1} of {images.name}")
                digest.update(frame)
                state = State(key, digest.images, digest.sha256, statistics)
                if seen:
                    seen(state.images, statistics)
                if resume and state.images % save_every == 0:
                    write_state(resume, state)
                bar.update()
    except KeyboardInterrupt:
        if resume and state.images:
            write_state(resume, state)
        raise
    if not state.images:
        raise InputError(f"{images.name} gave no image to calibrate with: name other data.")
    if resume:
        resume.unlink(missing_ok=True)
    return Collected(state.statistics, taps.same_as, state.images, state.data_sha256, done)


def _begin(
    images: Images, resume: Path | None, key: Mapping[str, Any], taps: Taps
) -> tuple[Iterator[_Frame], DataHash, State]:
    """The frames still to be looked at, and the hash and statistics of those before."""
    state = read_state(resume, key) if resume else None
    if state:
        frames, digest = iter(images), DataHash()
        while digest.images < state.images and (frame := next(frames, None)) is not None:
            digest.update(frame)
        if digest.sha256 == state.data_sha256:
            return frames, digest, state
    return iter(images), DataHash(), State(key, 0, "", {name: TensorStatistics(name) for name in taps.names})


class _Network:
    """The graphs of a package, to be looked into frame by frame."""

    def __init__(self, package: Package, models: Mapping[str, onnx.ModelProto], taps: Taps, segment_bytes: int) -> None:
        self._size, self._cut = package.manifest.input.size, package.manifest.cut
        first = "stem" if self._cut else "model"
        (self._frames,) = (value.name for value in models[first].graph.input)
        features = [value.name for value in models["trunk"].graph.input] if self._cut else []
        self._first = SegmentedGraph(models[first], taps.by_part[first], features, segment_bytes)
        self._trunk = SegmentedGraph(models["trunk"], taps.by_part["trunk"], (), segment_bytes) if self._cut else None

    def look_at(self, frame: _Frame, statistics: Mapping[str, TensorStatistics], where: str) -> None:
        """Take what a frame makes the network compute into the statistics."""
        if frame.shape != (*self._size, 3) or frame.dtype != np.uint8:
            height, width = self._size
            raise InputError(
                f"{where} is {frame.dtype} {frame.shape} and the package takes uint8 ({height}, {width}, 3): open the "
                "images at the package's size."
            )

        def visit(name: str, values: NDArray[Any]) -> None:
            statistics[name].update(values, where)

        features = self._first.run({self._frames: frame[None]}, visit)
        if self._trunk and self._cut:
            for batch in range(self._cut.batches):
                self._trunk.run({name: value[batch, None] for name, value in features.items()}, visit)
