"""Where results go: an overlay video, label maps as PNG files, a line of JSON per frame.

Each sink is a context manager that gives a function to be called once a frame, in order. What it writes is whole or
absent: it grows under a temporary name beside its place and is renamed when the block ends without an error.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.drawing import Overlay, legend
from runtime.sources import SourceFrame, silence_decoder
from splitmerge.errors import InputError
from splitmerge.files import new_file, new_folder
from splitmerge.labels import LabelClass, palette_bgr

if TYPE_CHECKING:
    from runtime.executor import FrameStats

__all__ = [
    "Result",
    "Sink",
    "label_folder",
    "mask_folder",
    "overlay_video",
    "record_file",
    "video_file",
    "write_image",
]

CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
"""What OpenCV's wheels can encode everywhere: MPEG-4 part 2 and motion JPEG. (They are built without H.264.)"""


@dataclass(frozen=True)
class Result:
    """One frame with its label map uint8 [H,W], at the frame's own size.

    `latency_ms` is from the frame being decoded to its labels being there, waiting included; `compute_ms` the engine's
    part of it and `stats` what the executor says of it; `dropped_before` how many frames of the source were given up
    between the one before and this; `resized` whether the engine saw the frame at another size than its own and the
    labels were resized back.
    """

    frame: SourceFrame
    labels: NDArray[np.uint8]
    latency_ms: float
    compute_ms: float
    stats: "FrameStats"
    dropped_before: int = 0
    resized: bool = False


Sink = Callable[[Result], None]


@contextmanager
def video_file(path: Path, size: tuple[int, int], fps: float) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """Write a video: a function that takes frames uint8 [H,W,3] BGR of `size` (height, width), both even.

    Raises InputError for an ending without a codec, a codec that does not open and a file that did not become whole.
    """
    codec = CODECS.get(path.suffix.lower())
    if codec is None:
        raise InputError(f"{path} cannot be written as video: end its name in {', '.join(CODECS)}.")
    silence_decoder()
    with new_file(path) as temporary:
        fourcc = cv2.VideoWriter.fourcc(codec[0], codec[1], codec[2], codec[3])
        writer = cv2.VideoWriter(str(temporary), cv2.CAP_FFMPEG, fourcc, fps, size[::-1])
        written = 0
        try:
            if not writer.isOpened():
                raise InputError(
                    f"{path} cannot be encoded: OpenCV's {codec} encoder does not take {size[0]}x{size[1]} "
                    f"(height x width) at {fps:g} frames per second; try an .avi, or smaller frames."
                )

            def write(frame_bgr: NDArray[np.uint8]) -> None:
                nonlocal written
                writer.write(frame_bgr)
                written += 1

            yield write
        finally:
            writer.release()
        _check_video(path, temporary, written)


@contextmanager
def overlay_video(
    path: Path,
    size: tuple[int, int],
    fps: float,
    classes: tuple[LabelClass, ...],
    alpha: float = 0.55,
    with_legend: bool = False,
) -> Iterator[Sink]:
    """The source with its labels blended over it, at its own size and rate, with a legend below where wanted.

    Video codecs halve the colours' resolution, so that an odd height or width gains one black row or column. The
    frames are evenly spaced: a source whose rate varies is written at its mean rate; the records keep its times.
    """
    if not 0 <= alpha <= 1:
        raise InputError(f"An overlay's alpha of {alpha:g} cannot be: choose 0 (frame only) to 1 (labels only).")
    height, width = size
    overlay = Overlay(height, width, palette_bgr(classes), alpha)
    strip = legend(classes, width, max(8, height // 60), (235, 235, 235), (24, 24, 24)) if with_legend else None
    below = 0 if strip is None else strip.shape[0]
    canvas = np.zeros(((height + below + 1) // 2 * 2, (width + 1) // 2 * 2, 3), np.uint8)
    if strip is not None:
        canvas[height : height + below, :width] = strip
    with video_file(path, canvas.shape[:2], fps) as write:

        def sink(result: Result) -> None:
            overlay.draw(result.frame.frame_bgr, result.labels, canvas[:height, :width])
            write(canvas)

        yield sink


@contextmanager
def label_folder(
    folder: Path, classes: tuple[LabelClass, ...] | None = None
) -> Iterator[Callable[[int, NDArray[np.uint8]], None]]:
    """A folder of `000000.png`, `000001.png`, ...: 8-bit gray images of class ids, or of colours if `classes` is given.

    Gives a function that takes the frame's index and its labels uint8 [H,W].

    The folder is replaced as a whole. Raises InputError where it holds anything but such files.
    """
    place = folder.resolve()
    if place.is_dir():
        _check_replaceable(folder)
    table = None if classes is None else np.ascontiguousarray(palette_bgr(classes).reshape(256, 1, 3))
    with new_folder(place) as temporary:

        def write(index: int, labels: NDArray[np.uint8]) -> None:
            image = labels if table is None else np.asarray(cv2.applyColorMap(labels, table), np.uint8)
            write_image(temporary / f"{index:06d}.png", image)

        yield write


@contextmanager
def mask_folder(folder: Path, classes: tuple[LabelClass, ...] | None = None) -> Iterator[Sink]:
    """`label_folder` for a run's results."""
    with label_folder(folder, classes) as write:
        yield lambda result: write(result.frame.index, result.labels)


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image file; its ending chooses the format. Raises InputError where that fails."""
    try:
        done, data = cv2.imencode(path.suffix, image)
    except cv2.error:
        done = False
    if not done:
        raise InputError(f"{path} cannot be encoded as an image: end its name in .png or .jpg.")
    try:
        path.write_bytes(data.tobytes())  # rather than imwrite, which on Windows takes ASCII names only
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): make room on its disk.") from None


@contextmanager
def record_file(path: Path, classes: tuple[LabelClass, ...]) -> Iterator[Sink]:
    """A file of one JSON object a line and frame: when it was shown, what it took, and the share of each class."""
    with new_file(path) as temporary, temporary.open("w") as file:
        names = [entry.name for entry in classes]

        def sink(result: Result) -> None:
            file.write(json.dumps(_record(result, names)) + "\n")

        yield sink


def _record(result: Result, names: list[str]) -> dict[str, object]:
    counts = cv2.calcHist([result.labels], [0], None, [256], [0, 256]).ravel()
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
        "area": {
            name: round(float(count) / result.labels.size, 6)
            for name, count in zip(names, counts[: len(names)], strict=True)
            if count
        },
    }


def _check_video(path: Path, temporary: Path, written: int) -> None:
    # VideoWriter reports nothing, not even a full disk: only reading the file tells whether it is one.
    capture = cv2.VideoCapture(str(temporary), cv2.CAP_FFMPEG)
    readable = capture.isOpened() and capture.get(cv2.CAP_PROP_FRAME_COUNT) >= written - (path.suffix.lower() == ".mkv")
    capture.release()
    if written and not readable:
        raise InputError(f"{path} did not become a whole video of {written} frames: make room on its disk.")


def _check_replaceable(folder: Path) -> None:
    for path in folder.iterdir():
        if not re.fullmatch(r"\d{6,}\.png", path.name):
            raise InputError(
                f"{folder} holds {path.name}, which is no label map, and the whole folder would be replaced: "
                "name a new folder."
            )
