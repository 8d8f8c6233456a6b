"""Video files that a browser plays: H.264 in MP4, QuickTime or Matroska, VP9 in WebM, each frame at its own time.

PyAV encodes (extra `video`). Its wheels bring FFmpeg with libx264 (GPL) and libvpx (BSD); an FFmpeg without libx264
may have libopenh264, and VP9 goes into MP4 too. Without PyAV, OpenCV writes MPEG-4 part 2, evenly spaced, which most
players show and browsers do not; `fallback_note` says so. AVI is always OpenCV's motion JPEG.

A process that is killed leaves a file that plays up to about the last two seconds (`runtime.gops`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.gops import CONTAINERS, VP9, GopVideo, unencodable
from runtime.sources import silence_decoder
from splitmerge.errors import InputError
from splitmerge.files import new_file, writable_folder

__all__ = ["FrameWriter", "OpenCVVideo", "check_ending", "encoder_for", "fallback_note", "open_video", "video_file"]

OPENCV_CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
"""What OpenCV's wheels can encode everywhere: MPEG-4 part 2 and motion JPEG. (They are built without H.264.)"""

H264 = ("libx264", "libopenh264")


class FrameWriter(Protocol):
    """Takes frames uint8 [H,W,3] BGR in order, each with its time in seconds; without one it follows evenly."""

    def __call__(self, frame_bgr: NDArray[np.uint8], time_s: float | None = None) -> None: ...


def encoder_for(path: Path) -> str | None:
    """FFmpeg's name of the encoder that PyAV will use for a file of this ending, None where OpenCV has to."""
    suffix = path.suffix.lower()
    if suffix not in CONTAINERS:
        return None
    try:
        import av.codec  # noqa: F401
    except ImportError:  # missing, or its libraries are
        return None
    wanted = (VP9,) if suffix == ".webm" else (*H264, VP9)
    return next((name for name in wanted if _can_encode(name)), None)


def _can_encode(name: str) -> bool:
    from av.codec import Codec
    from av.codec.codec import UnknownCodecError

    try:
        Codec(name, "w")
    except UnknownCodecError:
        return False
    return True


def fallback_note(path: Path) -> str | None:
    """One sentence for the user where the video will not play in a browser for want of PyAV, else None."""
    if path.suffix.lower() not in CONTAINERS or encoder_for(path) is not None:
        return None
    return (
        f"{path} will be MPEG-4 part 2 with evenly spaced frames, which browsers do not play, because PyAV with an "
        "H.264 or VP9 encoder is not here: pip install av."
    )


@contextmanager
def video_file(path: Path, size: tuple[int, int], fps: float) -> Iterator[FrameWriter]:
    """Write a video of `size` (height, width), both even, at `fps` frames per second where frames bring no times.

    The first frame is shown at 0, the others as long after it as their times are; a time that does not grow is moved
    on by one tick. Raises InputError for an ending without an encoder, an encoder that does not open, a frame that
    cannot be written and a file that did not become whole.
    """
    with new_file(path) as temporary:
        video = open_video(temporary, path, size, fps)
        try:
            yield video.write
            video.finish()
        except BaseException:
            video.drop()
            raise


def open_video(file: Path, name: Path, size: tuple[int, int], fps: float) -> "GopVideo | OpenCVVideo":
    """What writes a video of this ending into `file`. Raises InputError where nothing does; `name` is for errors."""
    check_ending(name)
    encoder = encoder_for(name)
    writable_folder(name.parent)
    return GopVideo(file, name, size, fps, encoder) if encoder else OpenCVVideo(file, name, size, fps)


def check_ending(name: Path) -> None:
    """Raises InputError where nothing writes a video of this ending."""
    suffixes = dict.fromkeys([*CONTAINERS, *OPENCV_CODECS]) if encoder_for(name) else OPENCV_CODECS
    if name.suffix.lower() not in suffixes:
        webm = " (.webm needs PyAV: pip install av)" if name.suffix.lower() == ".webm" else ""
        raise InputError(f"{name} cannot be written as video: end its name in {', '.join(suffixes)}{webm}.")


class OpenCVVideo:
    """What OpenCV can write, evenly spaced: MPEG-4 part 2, and motion JPEG in AVI. It cannot be cut back."""

    def __init__(self, file: Path, name: Path, size: tuple[int, int], fps: float) -> None:
        codec = OPENCV_CODECS[name.suffix.lower()]
        silence_decoder()
        fourcc = cv2.VideoWriter.fourcc(codec[0], codec[1], codec[2], codec[3])
        self.frames, self.safe = 0, 0
        self._file, self._name = file, name
        self._writer = cv2.VideoWriter(str(file), cv2.CAP_FFMPEG, fourcc, fps, size[::-1])
        if not self._writer.isOpened():
            raise unencodable(name, f"OpenCV's {codec}", size, fps, "try an .avi")

    def write(self, frame_bgr: NDArray[np.uint8], time_s: float | None = None) -> None:
        """Add a frame uint8 [H,W,3]; its time is not used."""
        self._writer.write(frame_bgr)
        self.frames += 1

    def sync(self) -> None:
        """Nothing: what OpenCV wrote is good for nothing before its end."""

    def finish(self) -> None:
        """End the file. Raises InputError where it is not whole then: on a full disk OpenCV says nothing before."""
        self._writer.release()
        capture = cv2.VideoCapture(str(self._file), cv2.CAP_FFMPEG)
        found = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else -1
        capture.release()
        if self.frames and found < self.frames - (self._name.suffix.lower() == ".mkv"):
            raise InputError(
                f"{self._name} did not become a whole video of {self.frames} frames: make room on its disk."
            )

    def drop(self) -> int:
        """Write nothing more; no frame is sure to be there."""
        self._writer.release()
        return 0
