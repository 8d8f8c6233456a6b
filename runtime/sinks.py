"""Where results go: an overlay video, label maps as PNG files, a line of JSON per frame.

Each sink is a context manager that gives a function to be called once a frame, in order. What it writes is whole or
absent: it grows under a temporary name beside its place and is renamed when the block ends without an error.
`output` around each of several sinks makes a full disk the failure of one: the others keep what they have.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.drawing import Overlay, legend
from runtime.sources import SourceFrame
from runtime.video_writer import video_file
from splitmerge.errors import InputError
from splitmerge.files import new_file, new_folder
from splitmerge.labels import LabelClass, palette_bgr

if TYPE_CHECKING:
    from runtime.executor import FrameStats

__all__ = [
    "OutputError",
    "Result",
    "Sink",
    "class_shares",
    "label_folder",
    "mask_folder",
    "output",
    "overlay_video",
    "record_file",
    "video_file",
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


class OutputError(InputError):
    """One output of a run could not be written on."""


@contextmanager
def output(opened: AbstractContextManager[Sink]) -> Iterator[Sink]:
    """The sink, made one of several that do not fall together.

    What a frame's sinks or their end raise of a disk becomes an OutputError, and on an OutputError of another sink this
    one ends as if the run had: what it wrote takes its place. Any other error, and one before the first frame was
    written, leaves nothing of it, as ever. The sink that fails leaves nothing either, which makes room for the others.
    """
    written, failed = 0, False
    with ExitStack() as stack:
        write = stack.enter_context(opened)

        def sink(result: Result) -> None:
            nonlocal written, failed
            try:
                write(result)
            except (OSError, InputError) as error:
                failed = True
                raise _output_error(error, written) from error
            written += 1

        try:
            yield sink
        except OutputError:
            if written and not failed:
                with suppress(OSError, InputError):  # the error that came first is the one to tell
                    stack.close()
            raise
        try:
            stack.close()
        except (OSError, InputError) as error:
            raise _output_error(error, written) from error


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

    Video codecs halve the colours' resolution, so that an odd height or width gains one black row or column. Frames
    are as far apart as in the source, whose rate may vary. Frames of another size than `size` are resized to it.
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
            overlay.draw(*_at_size(result, size), canvas[:height, :width])
            write(canvas, result.frame.time_s)

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
        raise _unwritable(path, error) from None


@contextmanager
def record_file(path: Path, classes: tuple[LabelClass, ...]) -> Iterator[Sink]:
    """A file of one JSON object a line and frame: when it was shown, what it took, and the share of each class.

    Each line is written as its frame is done, so that a killed process leaves whole lines.
    """
    with new_file(path) as temporary:
        file = temporary.open("w", buffering=1)

        def sink(result: Result) -> None:
            try:
                file.write(json.dumps(_record(result, classes)) + "\n")
            except OSError as error:
                raise _unwritable(path, error) from None

        try:
            yield sink
        except BaseException:
            with suppress(OSError):  # closing tries again to write what did not fit
                file.close()
            raise
        try:
            file.close()
        except OSError as error:
            raise _unwritable(path, error) from None


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


def _at_size(result: Result, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Frame and labels at a size (height, width): a live source may change its own."""
    frame_bgr, labels = result.frame.frame_bgr, result.labels
    if frame_bgr.shape[:2] == size:
        return frame_bgr, labels
    resized = cv2.resize(frame_bgr, size[::-1], interpolation=cv2.INTER_AREA)
    nearest = cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(resized, np.uint8), np.asarray(nearest, np.uint8)


def _output_error(error: OSError | InputError, written: int) -> OutputError:
    words = str(error)
    if isinstance(error, OSError):
        words = f"{error.filename or 'An output'} cannot be written ({error.strerror or error}): make room on its disk."
    return OutputError(
        f"{words.rstrip('.')}; the other outputs keep the {written} frames before." if written else words
    )


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be written ({error.strerror}): make room on its disk.")


def _check_replaceable(folder: Path) -> None:
    for path in folder.iterdir():
        if not re.fullmatch(r"\d{6,}\.png", path.name):
            raise InputError(
                f"{folder} holds {path.name}, which is no label map, and the whole folder would be replaced: "
                "name a new folder."
            )
