"""A decoded frame, what every source says of itself, and the few checks that all sources share."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from splitmerge.errors import InputError

__all__ = [
    "IMAGE_FPS",
    "Events",
    "Source",
    "SourceFrame",
    "checked_size",
    "rate_or_default",
    "read_on",
    "resized",
    "silence_decoder",
    "size_text",
]

SMALLEST = 32
"""Height and width of the smallest frame in pixels: one window of five split levels."""

IMAGE_FPS = 25.0
"""Frames per second where a source names no rate: images have no clock, and MJPEG over HTTP has none."""


DAMAGED, PATIENCE_S = 100, 1.0
"""Packets in a row that cannot be decoded and seconds spent on them, after which a video is taken to have ended."""


@dataclass(frozen=True)
class SourceFrame:
    """One decoded frame: its index from 0, its time in the source in seconds, its pixels uint8 [H,W,3].

    `captured_at` is the `time.perf_counter` of a live frame's leaving the decoder, None where a frame waits for
    nobody (a file); `scaled` whether it had another size than the source's first frame and was brought to that one.
    """

    index: int
    time_s: float
    frame_bgr: NDArray[np.uint8]
    captured_at: float | None = None
    scaled: bool = False


@dataclass
class Events:
    """What happened to a source while it was read.

    `captured` frames were decoded and `skipped` of them replaced by a newer one before anybody took them. `outages`
    counts losses of the connection, `stalls` those of them that the watchdog noticed, `attempts` the tries to get it
    back and `reconnects` those that did; `lost` says why a live source was given up, None where it was not.
    `size_changes` counts what the decoder lets through: within a connection OpenCV scales to the first size itself and
    does not tell; a further connection comes with its own. `still`: all its frames were the
    same to the bit.
    """

    captured: int = 0
    skipped: int = 0
    outages: int = 0
    stalls: int = 0
    attempts: int = 0
    reconnects: int = 0
    size_changes: int = 0
    lost: str | None = None
    size: tuple[int, int] | None = None
    still: bool = False
    _first: NDArray[np.uint8] | None = field(default=None, repr=False)  # until there is another one

    def saw(self, frame_bgr: NDArray[np.uint8]) -> None:
        """Note the next frame: its size (height, width), and whether it is another one than the first."""
        size = (frame_bgr.shape[0], frame_bgr.shape[1])
        self.size_changes += self.size is not None and self.size != size
        if self.size is None:
            self._first = frame_bgr
        elif self._first is not None:
            self.still = np.array_equal(frame_bgr, self._first)
            if not self.still:
                self._first = None
        self.size = size


class Source(Protocol):
    """Frames in order, to be iterated once, and what is known of them beforehand.

    `name` is fit to be shown (no credentials); `size` is (height, width) in pixels, the first frame's, to which later
    ones of another size are brought; `fps` frames per second; `frame_count` what the source promises, None where it
    does not say; `missing_frames`, after iterating to the end, how many of these could not be decoded; `live` whether
    the newest frame is wanted rather than every one.
    """

    name: str
    paths: tuple[Path, ...]
    size: tuple[int, int]
    fps: float
    frame_count: int | None
    missing_frames: int
    live: bool
    events: Events

    def __iter__(self) -> Iterator[SourceFrame]: ...

    def close(self) -> None:
        """Give back what was opened. Iterating to the end does so, too. A live source may be closed by any thread,
        which ends the iterating of another.
        """


def silence_decoder() -> None:
    """Keep OpenCV and FFmpeg from writing on stderr: what they say there is said again in an error of our own.

    It is also what keeps a URL's credentials out of logs: FFmpeg prints whole URLs.
    """
    # FFmpeg's level is read once, when the process first opens a video; a user's own setting wins.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def read_on(capture: cv2.VideoCapture) -> NDArray[np.uint8] | None:
    """The next frame that can be decoded, uint8 [H,W,3]; None at the end.

    OpenCV ends a read at a damaged packet just as at the end of a video, so some more are tried, for a moment.
    """
    began = time.perf_counter()
    for _ in range(DAMAGED):
        with suppress(cv2.error):  # a damaged frame may be of a size that cannot be
            done, frame = capture.read()
            if done:
                return np.asarray(frame, np.uint8)
        if time.perf_counter() - began > PATIENCE_S:
            break
    return None


def rate_or_default(fps: float) -> float:
    """Frames per second where the container names a rate that can be."""
    return fps if np.isfinite(fps) and 0 < fps <= 1000 else IMAGE_FPS


def checked_size(name: object, frame_bgr: NDArray[np.uint8]) -> tuple[int, int]:
    """(height, width) of a source's first frame. Raises InputError where it is too small to be split."""
    height, width = frame_bgr.shape[:2]
    if min(height, width) < SMALLEST:
        raise InputError(
            f"{name} has frames of {height}x{width} (height x width): {SMALLEST}x{SMALLEST} is the least that the "
            "networks' five levels can divide; use a larger video."
        )
    return height, width


def resized(frame_bgr: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The frame at `size` (height, width): averaged where it shrinks, linear where it grows, untouched where it fits.

    Height and width are scaled each on its own, so that a frame of another aspect is stretched rather than cropped.
    """
    height, width = frame_bgr.shape[:2]
    if (height, width) == size:
        return frame_bgr
    shrinks = size[0] * size[1] < height * width
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame_bgr, size[::-1], interpolation=interpolation), np.uint8)


def size_text(shape: tuple[int, ...]) -> str:
    """`512x1024`, height first."""
    return f"{shape[0]}x{shape[1]}"
