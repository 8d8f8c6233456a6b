"""Where frames come from: a video file, images, a camera, a stream's URL, standard input.

    for frame in open_source("drive.mp4"): ...     # SourceFrame(index, time_s, frame_bgr)

Opening decodes the first frame, so that a source that cannot be used is refused before any work begins. Decoding is
OpenCV's own (FFmpeg inside); what a container promises and does not keep shows in `missing_frames` at the end.

A file and a pipe wait, so that every frame of theirs is handed out. A camera and a stream do not: their newest frame
wins (`runtime.live`). `open_source`'s `live` overrides that, and a URL of a video with an end counts as a file.
A video that changes its size keeps the first frame's: later ones are scaled to it, because outputs have one size.
"""

import glob
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.addresses import camera_of, is_url, masked, url_of
from runtime.avi import empty_frames
from runtime.connection import Connection, Paced, Stream
from runtime.frames import (
    IMAGE_FPS,
    Events,
    Source,
    SourceFrame,
    checked_size,
    rate_or_default,
    read_on,
    resized,
    silence_decoder,
    size_text,
)
from runtime.interlaced import refuse_interlaced
from runtime.live import Limits, LiveSource
from splitmerge.errors import InputError
from training.data import IMAGE_SUFFIXES, read_image

__all__ = ["COUNTED", "ImageSource", "Source", "SourceFrame", "VideoSource", "open_source", "silence_decoder"]

COUNTED = (".mp4", ".m4v", ".mov", ".avi")
"""Containers that list their frames. In others the count is duration times rate, and sound may outlast the picture."""


def open_source(name: str, live: bool | None = None, limits: Limits | None = None) -> Source:
    """Open what `name` means: `0` or `/dev/video0`, a URL, `-`, a video file, a folder of images or a pattern.

    `live` overrides whether the newest frame is wanted or every one; a file is then played at its own pace. Raises
    InputError where it cannot be opened or decoded.
    """
    limits = limits or Limits()
    camera = camera_of(name)
    name = url_of(name) if is_url(name) else name
    if camera is not None or is_url(name) or name == "-":
        target, shown = name if camera is None else camera, _shown(name, camera)
        if live is None and not is_url(name):
            live = camera is not None

        def connect() -> Connection:
            return Stream(target, shown, limits.stall_s)

        return LiveSource(shown, connect, limits, live, ends=name == "-")
    source = _open_files(name)
    return _played(source, limits) if live else source


def _open_files(name: str) -> "VideoSource | ImageSource":
    path = Path(name)
    if path.is_dir():
        return ImageSource(name, _images(path.iterdir()))
    if not path.exists() and glob.has_magic(name):
        return ImageSource(name, _images(Path(p) for p in glob.glob(name)))  # noqa: PTH207 (it may be absolute)
    if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
        return ImageSource(name, [path])
    return VideoSource(path)


def _played(source: "VideoSource | ImageSource", limits: Limits) -> LiveSource:
    connect: Callable[[], Connection] = lambda: Paced(source)  # noqa: E731 (a connection is opened in its thread)
    played = LiveSource(source.name, connect, limits, True, ends=True)
    played.paths = source.paths
    return played


def _shown(name: str, camera: int | str | None) -> str:
    if name == "-":
        return "standard input"
    return f"camera {camera}" if isinstance(camera, int) else masked(name)


class VideoSource:
    """A video file. Raises InputError where it is missing, empty, no video, or has no frame that can be decoded."""

    def __init__(self, path: Path) -> None:
        _check_file(path)
        silence_decoder()
        self.name, self.live, self.events, self._skipped = str(path), False, Events(), 0
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
        self.fps = rate_or_default(self._capture.get(cv2.CAP_PROP_FPS))
        promised = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if path.suffix.lower() == ".avi":
            promised -= empty_frames(path)
        self.frame_count: int | None = promised if promised > 0 else None
        self.missing_frames = 0
        first = self._decode()
        if first is None:
            raise InputError(f"{path} has no frame that can be decoded ({promised} promised): copy or encode it again.")
        refuse_interlaced(path)
        self._first, self._first_time = first, self._position()
        self.size = checked_size(path, first)

    def __iter__(self) -> Iterator[SourceFrame]:
        try:
            yield from self._frames()
        finally:
            self.close()

    def close(self) -> None:
        self._capture.release()

    def skip(self, frames: int) -> None:
        """Begin after so many frames, with the numbers and times that all have. To be called before iterating.

        They are decoded and dropped: seeking finds the same frame again only where index and time stamps are right.
        """
        self._skipped = frames

    def again(self) -> "VideoSource":
        """The same video from its beginning."""
        return VideoSource(self.paths[0])

    def _frames(self) -> Iterator[SourceFrame]:
        frame: NDArray[np.uint8] | None = self._first
        time_s, index = self._first_time or 0.0, 0
        while frame is not None:
            size = (frame.shape[0], frame.shape[1])
            self.events.saw(frame)
            if index >= self._skipped:
                yield SourceFrame(index, round(time_s, 6), resized(frame, self.size), scaled=size != self.size)
            frame, index, before = self._decode(), index + 1, time_s
            position = self._position()
            # Some containers have no clock (0 for every frame) and some clocks stand still: count frames instead.
            time_s = position if position is not None and position > before else before + 1 / self.fps
        self.missing_frames = self._shortfall(index)

    def _decode(self) -> NDArray[np.uint8] | None:
        return read_on(self._capture)

    def _position(self) -> float | None:
        """Time of the frame decoded last, in seconds; read before it, OpenCV would give the time of the one before."""
        milliseconds = float(self._capture.get(cv2.CAP_PROP_POS_MSEC))
        return milliseconds / 1000 if milliseconds >= 0 and np.isfinite(milliseconds) else None

    def _shortfall(self, decoded: int) -> int:
        missing = max(0, (self.frame_count or 0) - decoded)
        exact = Path(self.name).suffix.lower() in COUNTED
        return missing if exact or missing > self.fps else 0


class ImageSource:
    """Image files in alphabetical order, 25 frames per second. Raises InputError where there is none."""

    def __init__(self, name: str, paths: list[Path]) -> None:
        if not paths:
            raise InputError(f"{name} has no images ({', '.join(IMAGE_SUFFIXES)}): name a video or a folder of images.")
        self.name, self.paths, self.fps = name, tuple(paths), IMAGE_FPS
        self.frame_count: int | None = len(paths)
        self.missing_frames, self.live, self.events, self._skipped = 0, False, Events(), 0
        self.size = checked_size(self.paths[0], read_image(self.paths[0]))

    def __iter__(self) -> Iterator[SourceFrame]:
        for index, path in enumerate(self.paths[self._skipped :], self._skipped):
            frame_bgr = read_image(path)
            if frame_bgr.shape[:2] != self.size:
                raise InputError(
                    f"{path} is {size_text(frame_bgr.shape)} and {self.paths[0]} is {size_text(self.size)} "
                    "(height x width): the images of a source must be of one size."
                )
            yield SourceFrame(index, round(index / self.fps, 6), frame_bgr)

    def close(self) -> None:
        pass

    def skip(self, frames: int) -> None:
        """Begin after so many images. To be called before iterating."""
        self._skipped = frames

    def again(self) -> "ImageSource":
        """The same images from the first."""
        return ImageSource(self.name, list(self.paths))


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
