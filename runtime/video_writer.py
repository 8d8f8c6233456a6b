"""Video files that a browser plays: H.264 in MP4, QuickTime or Matroska, VP9 in WebM, each frame at its own time.

PyAV encodes (extra `video`). Its wheels bring FFmpeg with libx264 (GPL) and libvpx (BSD); an FFmpeg without libx264
may have libopenh264, and VP9 goes into MP4 too. Without PyAV, OpenCV writes MPEG-4 part 2, evenly spaced, which most
players show and browsers do not; `fallback_note` says so. AVI is always OpenCV's motion JPEG.

A process that is killed leaves a file that plays up to about the last two seconds: MP4 grows in fragments and becomes
a plain indexed file at its end, Matroska and WebM grow in clusters of one second.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.sources import silence_decoder
from splitmerge.errors import InputError
from splitmerge.files import new_file

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import OutputContainer
    from av.error import FFmpegError
    from av.video.stream import VideoStream

__all__ = ["FrameWriter", "encoder_for", "fallback_note", "video_file"]

OPENCV_CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
"""What OpenCV's wheels can encode everywhere: MPEG-4 part 2 and motion JPEG. (They are built without H.264.)"""

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""What PyAV writes, as FFmpeg calls it. (By its own guess an .m4v would be a bare MPEG-4 stream.)"""

H264 = ("libx264", "libopenh264")
VP9 = "libvpx-vp9"

ENCODER_OPTIONS = {
    # No B-frames: a frame's packet leaves as soon as it is coded, and decoding order is display order.
    "libx264": {"preset": "veryfast", "crf": "21", "bf": "0"},
    "libopenh264": {"rc_mode": "quality"},
    VP9: {"deadline": "realtime", "cpu-used": "7", "row-mt": "1", "crf": "31", "b": "0"},
}

TICK = Fraction(1, 90000)
"""Unit of time stamps in seconds: MPEG's, of which every usual frame rate is a whole number. (WebM rounds to 1 ms.)"""

BT601 = 6  # SMPTE 170M in FFmpeg's enumerations of matrix, primaries and transfer alike
TV_RANGE = 1


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
    encoder = encoder_for(path)
    suffixes = dict.fromkeys([*CONTAINERS, *OPENCV_CODECS]) if encoder else OPENCV_CODECS
    if path.suffix.lower() not in suffixes:
        webm = " (.webm needs PyAV: pip install av)" if path.suffix.lower() == ".webm" else ""
        raise InputError(f"{path} cannot be written as video: end its name in {', '.join(suffixes)}{webm}.")
    with new_file(path) as temporary:
        made = _by_pyav(path, temporary, size, fps, encoder) if encoder else _by_opencv(path, temporary, size, fps)
        with made as write:
            yield write


@contextmanager
def _by_pyav(path: Path, temporary: Path, size: tuple[int, int], fps: float, encoder: str) -> Iterator[FrameWriter]:
    import av
    from av.error import FFmpegError

    try:
        container = av.open(str(temporary), "w", CONTAINERS[path.suffix.lower()], options=muxer_options(path))
    except FFmpegError as error:
        raise _unwritable(path, error) from None
    clock = _Ticks(fps)

    def write(frame_bgr: NDArray[np.uint8], time_s: float | None = None) -> None:
        if frame_bgr.shape[:2] != size:
            raise InputError(
                f"{path} was begun with frames of {size[0]}x{size[1]} and got one of {frame_bgr.shape[0]}x"
                f"{frame_bgr.shape[1]} (height x width): a video's frames are of one size, write another file."
            )
        frame = av.VideoFrame.from_ndarray(frame_bgr, format="bgr24").reformat(format="yuv420p")
        frame.pts, frame.time_base = clock.next(time_s), TICK
        frame.duration = clock.period
        _mux(container, stream, frame, path)

    try:
        try:
            stream = _video_stream(container, size, fps, encoder)
        except FFmpegError as error:
            raise _unencodable(path, encoder, size, fps, error.strerror or str(error)) from None
        yield write
    except BaseException:
        with suppress(FFmpegError):  # the error that came first is the one to tell
            container.close()
        raise
    try:
        if clock.frames:
            _mux(container, stream, None, path)
        container.close()
        if not clock.frames:
            temporary.touch()  # FFmpeg makes no file before its first frame
    except FFmpegError as error:
        raise _unwritable(path, error) from None


class _Ticks:
    """Times of frames in ticks after the first one's, always growing."""

    def __init__(self, fps: float) -> None:
        self.period = round(1 / fps / TICK)
        self.frames = 0
        self._fps, self._first, self._last = fps, 0.0, -1

    def next(self, time_s: float | None) -> int:
        time_s = self.frames / self._fps if time_s is None else time_s
        if not self.frames:
            self._first = time_s
        self._last = max(self._last + 1, round((time_s - self._first) / TICK))
        self.frames += 1
        return self._last


def _video_stream(container: "OutputContainer", size: tuple[int, int], fps: float, encoder: str) -> "VideoStream":
    rate = Fraction(fps).limit_denominator(1001)
    stream: VideoStream = container.add_stream(encoder, rate=rate, options=ENCODER_OPTIONS[encoder])  # type: ignore[assignment]
    context = stream.codec_context
    context.height, context.width = size
    context.pix_fmt = "yuv420p"  # the one kind of H.264 that every browser takes
    context.time_base = TICK
    context.gop_size = max(1, round(fps))  # fragments and clusters begin at key frames: a second each
    # Said in the file, so that players undo the very matrix that FFmpeg's scaler applies.
    context.colorspace = context.color_primaries = context.color_trc = BT601
    context.color_range = TV_RANGE
    context.open()
    return stream


def muxer_options(path: Path) -> dict[str, str]:
    if CONTAINERS[path.suffix.lower()] in ("mp4", "mov"):
        return {"movflags": "hybrid_fragmented+frag_keyframe+default_base_moof", "flush_packets": "1"}
    return {"cluster_time_limit": "1000", "flush_packets": "1"}


def _mux(container: "OutputContainer", stream: "VideoStream", frame: "VideoFrame | None", path: Path) -> None:
    from av.error import FFmpegError

    try:
        for packet in stream.encode(frame):
            container.mux(packet)
    except FFmpegError as error:
        raise _unwritable(path, error) from None


@contextmanager
def _by_opencv(path: Path, temporary: Path, size: tuple[int, int], fps: float) -> Iterator[FrameWriter]:
    codec = OPENCV_CODECS[path.suffix.lower()]
    silence_decoder()
    fourcc = cv2.VideoWriter.fourcc(codec[0], codec[1], codec[2], codec[3])
    writer = cv2.VideoWriter(str(temporary), cv2.CAP_FFMPEG, fourcc, fps, size[::-1])
    written = 0

    def write(frame_bgr: NDArray[np.uint8], time_s: float | None = None) -> None:
        nonlocal written
        writer.write(frame_bgr)
        written += 1

    try:
        if not writer.isOpened():
            raise _unencodable(path, f"OpenCV's {codec}", size, fps, "try an .avi")
        yield write
    finally:
        writer.release()
    _check_video(path, temporary, written)


def _check_video(path: Path, temporary: Path, written: int) -> None:
    # VideoWriter reports nothing, not even a full disk: only reading the file tells whether it is one.
    capture = cv2.VideoCapture(str(temporary), cv2.CAP_FFMPEG)
    readable = capture.isOpened() and capture.get(cv2.CAP_PROP_FRAME_COUNT) >= written - (path.suffix.lower() == ".mkv")
    capture.release()
    if written and not readable:
        raise InputError(f"{path} did not become a whole video of {written} frames: make room on its disk.")


def _unencodable(path: Path, encoder: str, size: tuple[int, int], fps: float, why: str) -> InputError:
    return InputError(
        f"{path} cannot be encoded: the encoder {encoder} does not take {size[0]}x{size[1]} (height x width) at "
        f"{fps:g} frames per second ({why}); give smaller frames, both sides even."
    )


def _unwritable(path: Path, error: "FFmpegError") -> InputError:
    return InputError(f"{path} cannot be written ({error.strerror or error}): make room on its disk.")
