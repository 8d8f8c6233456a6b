"""Where results go: an overlay video, label maps as PNG files, a line of JSON per frame.

Each sink is a context manager that gives a function to be called once a frame, in order. What it writes is whole or
absent: it grows under a hidden name beside its place and is renamed when the block ends without an error. A run's
outputs, which keep what they have and can be continued, are `runtime.run_outputs`.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.growing import Growing, GrowingRecords
from runtime.growing_masks import GrowingMasks, write_image
from runtime.growing_overlay import GrowingOverlay, OverlayPicture
from runtime.sources import SourceFrame
from runtime.video_writer import video_file
from splitmerge.errors import InputError
from splitmerge.labels import LabelClass

if TYPE_CHECKING:
    from runtime.executor import FrameStats

__all__ = [
    "Result",
    "Sink",
    "class_shares",
    "growing_records",
    "label_folder",
    "mask_folder",
    "overlay_video",
    "record_file",
    "video_file",
    "whole_or_absent",
    "write_image",
]


@dataclass(frozen=True)
class Result:
    """One frame with its label map uint8 [H,W], at the frame's own size.

    `latency_ms` is from the frame being decoded to its labels being there, waiting included; `compute_ms` the engine's
    part of it and `stats` what the executor says of it; `dropped_before` how many frames of the source were given up
    between the one before and this; `resized` whether the engine saw the frame at another size than its own and the
    labels were resized back. `reconnects` is how often a live source was opened again since the run began.
    """

    frame: SourceFrame
    labels: NDArray[np.uint8]
    latency_ms: float
    compute_ms: float
    stats: "FrameStats"
    dropped_before: int = 0
    resized: bool = False
    reconnects: int = 0


Sink = Callable[[Result], None]


@contextmanager
def whole_or_absent(growing: "Growing | GrowingOverlay") -> Iterator[Sink]:
    """An output that takes its place when the block ends, and leaves nothing after an error."""
    growing.begin()
    frames = 0

    def sink(result: Result) -> None:
        nonlocal frames
        growing.write(result)
        frames += 1

    try:
        yield sink
        if growing.close(frames) < frames:
            raise InputError(f"{growing.place} did not become whole: make room on its disk.")
        growing.publish()
    finally:
        growing.discard()


def overlay_video(
    path: Path,
    size: tuple[int, int],
    fps: float,
    classes: tuple[LabelClass, ...],
    alpha: float = 0.55,
    with_legend: bool = False,
) -> AbstractContextManager[Sink]:
    """The source with its labels blended over it, at its own size (height, width) and rate.

    Frames are as far apart as in the source, whose rate may vary.
    """
    return whole_or_absent(GrowingOverlay(path, OverlayPicture(size, classes, alpha, with_legend), fps))


@contextmanager
def label_folder(
    folder: Path, classes: tuple[LabelClass, ...] | None = None
) -> Iterator[Callable[[int, NDArray[np.uint8]], None]]:
    """A folder of `000000.png`, `000001.png`, ...: 8-bit gray images of class ids, or of colours if `classes` is given.

    Gives a function that takes the frame's index and its labels uint8 [H,W].

    The folder is replaced as a whole. Raises InputError where it holds anything but such files.
    """
    masks = GrowingMasks(folder, classes)
    masks.begin()
    try:
        yield masks.write_labels
        masks.publish()
    finally:
        masks.discard()


def mask_folder(folder: Path, classes: tuple[LabelClass, ...] | None = None) -> AbstractContextManager[Sink]:
    """`label_folder` for a run's results."""
    return whole_or_absent(GrowingMasks(folder, classes))


def record_file(path: Path, classes: tuple[LabelClass, ...]) -> AbstractContextManager[Sink]:
    """A file of one JSON object a line and frame: when it was shown, what it took, and the share of each class."""
    return whole_or_absent(growing_records(path, classes))


def growing_records(path: Path, classes: tuple[LabelClass, ...]) -> GrowingRecords:
    """`record_file`, to be continued."""
    return GrowingRecords(path, lambda result: json.dumps(_record(result, classes)))


def class_shares(labels: NDArray[np.uint8], classes: tuple[LabelClass, ...]) -> dict[str, float]:
    """The share of the pixels, 0 to 1, of each class in a label map [H,W]; of all classes, in their order."""
    counts = cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel()
    return {entry.name: float(count) / labels.size for entry, count in zip(classes, counts, strict=False)}


def _record(result: Result, classes: tuple[LabelClass, ...]) -> dict[str, object]:
    shares = class_shares(result.labels, classes)
    return {
        "frame": result.frame.index,
        "time_s": result.frame.time_s,
        "latency_ms": round(result.latency_ms, 3),
        "compute_ms": round(result.compute_ms, 3),
        "stem_ms": round(result.stats.stem_ms, 3),
        "trunk_ms": round(result.stats.trunk_ms, 3),
        "split_batches": result.stats.split_batches,
        "held": result.stats.held,
        "dropped_before": result.dropped_before,
        "resized": result.resized,
        "area": {name: round(share, 6) for name, share in shares.items() if share},
    }
