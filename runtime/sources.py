"""Where frames come from: a video file, a folder of images or a pattern such as `frames/*.png`.

    for frame in open_source("drive.mp4"): ...     # SourceFrame(index, time_s, frame_bgr)

Opening decodes the first frame, so that a source that cannot be used is refused before any work begins. Decoding is
OpenCV's own (FFmpeg inside); what a container promises and does not keep shows in `missing_frames` at the end.
"""

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from splitmerge.errors import InputError
from training.data import IMAGE_SUFFIXES, read_image

__all__ = ["ImageSource", "Source", "SourceFrame", "VideoSource", "open_source", "silence_decoder"]

SMALLEST = 32
"""Height and width of the smallest frame in pixels: one window of five split levels."""

IMAGE_FPS = 25.0
"""Frames per second that a folder of images is taken to have; images have no clock."""

_COUNTED = (".mp4", ".m4v", ".mov", ".avi")
"""Containers that list their frames. In others the count is duration times rate, and sound may outlast the picture."""


@dataclass(frozen=True)
class SourceFrame:
    """One decoded frame: its index from 0, its time in the source in seconds, its pixels uint8 [H,W,3]."""

    index: int
    time_s: float
    frame_bgr: NDArray[np.uint8]


class Source(Protocol):
    """Frames in order, to be iterated once, and what is known of them beforehand.

    `size` is (height, width) in pixels; `fps` frames per second; `frame_count` what the source promises, None where it
    does not say; `missing_frames`, after iterating to the end, how many of these could not be decoded.
    """

    name: str
    paths: tuple[Path, ...]
    size: tuple[int, int]
    fps: float
    frame_count: int | None
    missing_frames: int

    def __iter__(self) -> Iterator[SourceFrame]: ...

    def close(self) -> None:
        """Give back the file. Iterating to the end does so, too."""


def open_source(name: str) -> "VideoSource | ImageSource":
    """Open a video file, a folder of images or a pattern. Raises InputError where it cannot be decoded."""
    path = Path(name)
    if path.is_dir():
        return ImageSource(name, _images(path.iterdir()))
    if not path.exists() and glob.has_magic(name):
        return ImageSource(name, _images(Path(p) for p in glob.glob(name)))  # noqa: PTH207 (it may be absolute)
    if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
        return ImageSource(name, [path])
    return VideoSource(path)


def silence_decoder() -> None:
    """Keep OpenCV and FFmpeg from writing on stderr: what they say there is said again in an error of our own."""
    # FFmpeg's level is read once, when the process first opens a video; a user's own setting wins.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class VideoSource:
    """A video file. Raises InputError where it is missing, empty, no video, or has no frame that can be decoded."""

    def __init__(self, path: Path) -> None:
        _check_file(path)
        silence_decoder()
        self.name = str(path)
        self.paths: tuple[Path, ...] = (path,)
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise InputError(
                f"{path} is not a video that can be opened ({path.stat().st_size} bytes): it is another kind of file, "
                "or its end is cut off; copy it again."
            )
        try:
            self._begin(path)
        except BaseException:
            self.close()
            raise

    def _begin(self, path: Path) -> None:
        self.fps = _rate(self._capture.get(cv2.CAP_PROP_FPS))
        promised = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.frame_count: int | None = promised if promised > 0 else None
        self.missing_frames = 0
        first = self._decode()
        if first is None:
            raise InputError(f"{path} has no frame that can be decoded ({promised} promised): copy or encode it again.")
        self._first, self._first_time = first, self._position()
        self.size = _checked_size(path, first)

    def __iter__(self) -> Iterator[SourceFrame]:
        try:
            yield from self._frames()
        finally:
            self.close()

    def close(self) -> None:
        self._capture.release()

    def _frames(self) -> Iterator[SourceFrame]:
        frame: NDArray[np.uint8] | None = self._first
        time_s, index = self._first_time or 0.0, 0
        while frame is not None:
            if frame.shape[:2] != self.size:
                raise InputError(
                    f"{self.name} changes its size at frame {index} (from {_text(self.size)} to "
                    f"{_text(frame.shape)}, height x width): encode it again at one size."
                )
            yield SourceFrame(index, round(time_s, 6), frame)
            frame, index, before = self._decode(), index + 1, time_s
            position = self._position()
            # Some containers have no clock (0 for every frame) and some clocks stand still: count frames instead.
            time_s = position if position is not None and position > before else before + 1 / self.fps
        self.missing_frames = self._shortfall(index)

    def _decode(self) -> NDArray[np.uint8] | None:
        ok, frame = self._capture.read()
        return np.asarray(frame, np.uint8) if ok else None

    def _position(self) -> float | None:
        """Time of the frame decoded last, in seconds; read before it, OpenCV would give the time of the one before."""
        milliseconds = float(self._capture.get(cv2.CAP_PROP_POS_MSEC))
        return milliseconds / 1000 if milliseconds >= 0 and np.isfinite(milliseconds) else None

    def _shortfall(self, decoded: int) -> int:
        missing = max(0, (self.frame_count or 0) - decoded)
        exact = Path(self.name).suffix.lower() in _COUNTED
        return missing if exact or missing > self.fps else 0


class ImageSource:
    """Image files in alphabetical order, 25 frames per second. Raises InputError where there is none."""

    def __init__(self, name: str, paths: list[Path]) -> None:
        if not paths:
            raise InputError(f"{name} has no images ({', '.join(IMAGE_SUFFIXES)}): name a video or a folder of images.")
        self.name, self.paths, self.fps = name, tuple(paths), IMAGE_FPS
        self.frame_count: int | None = len(paths)
        self.missing_frames = 0
        self.size = _checked_size(self.paths[0], read_image(self.paths[0]))

    def __iter__(self) -> Iterator[SourceFrame]:
        for index, path in enumerate(self.paths):
            frame_bgr = read_image(path)
            if frame_bgr.shape[:2] != self.size:
                raise InputError(
                    f"{path} is {_text(frame_bgr.shape)} and {self.paths[0]} is {_text(self.size)} (height x width): "
                    "the images of a source must be of one size."
                )
            yield SourceFrame(index, round(index / self.fps, 6), frame_bgr)

    def close(self) -> None:
        pass


def _check_file(path: Path) -> None:
    if not path.is_file():
        what = "is not a regular file" if path.exists() else "does not exist"
        raise InputError(f"The source {path} {what}: name a video, a folder of images or a pattern like 'a/*.png'.")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes): copy or record it again.")
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None


def _images(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES)


def _rate(fps: float) -> float:
    return fps if np.isfinite(fps) and 0 < fps <= 1000 else IMAGE_FPS


def _checked_size(path: Path, frame_bgr: NDArray[np.uint8]) -> tuple[int, int]:
    height, width = frame_bgr.shape[:2]
    if min(height, width) < SMALLEST:
        raise InputError(
            f"{path} has frames of {height}x{width} (height x width): {SMALLEST}x{SMALLEST} is the least that the "
            "networks' five levels can divide; use a larger video."
        )
    return height, width


def _text(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"
