"""A video made by PyAV that grows by groups of pictures and can be cut back to one and continued.

Each group of pictures (GOP) begins at a frame number that its length divides, and has an encoder of its own. So what is
coded for a frame depends on the frames of its group alone, never on where a run was stopped and continued: the file of
a continued run has the very bytes of an uninterrupted one's.

The file grows in pieces (MP4 fragments, Matroska clusters) of one group each, and a piece is written when the next one
begins. `safe` frames are in it whatever happens; up to there a killed process' file plays.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtime.growing import NotContinuable
from splitmerge.errors import InputError

if TYPE_CHECKING:
    from av import Packet
    from av.container import OutputContainer
    from av.error import FFmpegError
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

__all__ = ["CONTAINERS", "TICK", "Clock", "GopVideo", "group_length", "muxer_options", "unencodable"]

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""What PyAV writes, as FFmpeg calls it. (By its own guess an .m4v would be a bare MPEG-4 stream.)"""

VP9 = "libvpx-vp9"

ENCODER_OPTIONS = {
    # No B-frames: a frame's packet leaves as soon as it is coded, and decoding order is display order.
    # Bits depend on the number of threads, so it is one number on every machine.
    "libx264": {"preset": "veryfast", "crf": "21", "bf": "0", "threads": "4"},
    "libopenh264": {"rc_mode": "quality", "threads": "1"},
    VP9: {"deadline": "realtime", "cpu-used": "7", "row-mt": "1", "crf": "31", "b": "0", "threads": "4"},
}

TICK = Fraction(1, 90000)
"""Unit of time stamps in seconds: MPEG's, of which every usual frame rate is a whole number. (WebM rounds to 1 ms.)"""

BT601 = 6  # SMPTE 170M in FFmpeg's enumerations of matrix, primaries and transfer alike
TV_RANGE = 1


def group_length(fps: float) -> int:
    """Frames in a group of pictures: those of about a second."""
    return max(1, round(fps))


def muxer_options(path: Path) -> dict[str, str]:
    """So that the file grows by whole groups of pictures and says nothing of the day it was made on."""
    options = {"flush_packets": "1", "fflags": "+bitexact"}
    if CONTAINERS[path.suffix.lower()] in ("mp4", "mov"):
        return options | {"movflags": "hybrid_fragmented+frag_keyframe+default_base_moof"}
    return options | {"dash": "1"}  # a cluster for each group, which otherwise only WebM for DASH has


@dataclass
class Clock:
    """Times of frames in ticks after the first one's, always growing. `last` is the last one's."""

    fps: float
    frames: int = 0
    first_s: float = 0.0
    last: int = -1

    @property
    def period(self) -> int:
        return round(1 / self.fps / TICK)

    def next(self, time_s: float | None) -> int:
        """The time of the next frame, which is shown at `time_s`; without it evenly after the one before."""
        time_s = self.frames / self.fps if time_s is None else time_s
        if not self.frames:
            self.first_s = time_s
        self.last = max(self.last + 1, round((time_s - self.first_s) / TICK))
        self.frames += 1
        return self.last


class GopVideo:
    """Writes frames uint8 [H,W,3] BGR of one size (height, width), both even, into `file`; errors call it `name`.

    Raises InputError where the encoder does not open and where the file cannot be written.
    """

    def __init__(self, file: Path, name: Path, size: tuple[int, int], fps: float, encoder: str) -> None:
        import av
        from av.error import FFmpegError

        self.clock, self.safe = Clock(fps), 0
        self._name, self._size, self._encoder = name, size, encoder
        self._length, self._rate = group_length(fps), Fraction(fps).limit_denominator(1001)
        self._coding: VideoCodecContext | None = None
        self._muxed = self._safe_bytes = 0
        try:
            # A file of our own rather than FFmpeg's, which only ever closes one with a trailer that may not fit.
            self._file = file.open("wb")
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            container_name = CONTAINERS[name.suffix.lower()]
            self._container: OutputContainer = av.open(self._file, "w", container_name, options=muxer_options(name))
            self._stream = self._new_stream()
        except (FFmpegError, ValueError) as error:
            self.drop()
            raise self._unencodable(error) from None

    @property
    def frames(self) -> int:
        """How many were written."""
        return self.clock.frames

    def write(self, frame_bgr: NDArray[np.uint8], time_s: float | None = None) -> None:
        """Add a frame, `time_s` seconds into the source; without a time it follows evenly."""
        from av import VideoFrame

        if frame_bgr.shape[:2] != self._size:
            raise InputError(
                f"{self._name} was begun with frames of {self._size[0]}x{self._size[1]} and got one of "
                f"{frame_bgr.shape[0]}x{frame_bgr.shape[1]} (height x width): a video's frames are of one size, write "
                "another file."
            )
        if self.frames % self._length == 0:
            self._end_group()
            self._coding = self._new_encoder()
        frame = VideoFrame.from_ndarray(frame_bgr, format="bgr24").reformat(format="yuv420p")
        frame.pts, frame.time_base, frame.duration = self.clock.next(time_s), TICK, self.clock.period
        self._code(frame)

    def copy(self, video: Path, clock: Clock) -> None:
        """Begin with the first `clock.frames` of a video that was written as this one is; whole groups of them.

        Raises NotContinuable where it has fewer.
        """
        import av
        from av.error import FFmpegError

        try:
            with av.open(str(video)) as container:
                stream = container.streams.video[0]
                h264 = (stream.codec_context.extradata or b"").startswith(b"\x01")
                for packet in container.demux(stream):
                    if self._muxed == clock.frames or not packet.size:
                        break
                    self._mux(_start_codes(packet) if h264 else packet)
        except (FFmpegError, IndexError):
            pass  # what is missing shows below
        if self._muxed != clock.frames:
            raise NotContinuable(
                f"{self._name} was to have {clock.frames} frames and {self._muxed} can be read: leave out --resume to "
                "begin anew."
            )
        self.clock = clock

    def sync(self) -> None:
        """Have what was written on the disk itself."""
        os.fsync(self._file.fileno())

    def finish(self) -> None:
        """Code what waits and make a plain file with an index."""
        from av.error import FFmpegError

        self._end_group()
        try:
            if self.frames:  # FFmpeg cannot end a file that never began
                self._container.close()
            self._file.flush()
            self.sync()
            self._file.close()
        except (FFmpegError, OSError) as error:
            raise self._unwritable(error) from None

    def drop(self) -> int:
        """Write nothing more. Gives how many frames the file has: the safe ones, for which no more room is needed."""
        with suppress(OSError):
            self._file.close()  # and with it PyAV leaves the trailer out
        if self.safe:
            os.truncate(self._file.name, self._safe_bytes)
        return self.safe

    def _end_group(self) -> None:
        if self._coding is not None:
            self._code(None)
            self._coding = None

    def _code(self, frame: Any) -> None:
        from av.error import FFmpegError

        assert self._coding is not None
        try:
            for packet in self._coding.encode(frame):
                self._mux(packet)
        except (FFmpegError, OSError) as error:
            raise self._unwritable(error) from None

    def _mux(self, packet: "Packet[Any]") -> None:
        before = self._file.tell()
        packet.stream = self._stream
        self._container.mux(packet)
        self._file.flush()
        if self._file.tell() > before and self._muxed % self._length == 0:  # the group before this packet's is in it
            self.safe, self._safe_bytes = self._muxed, self._file.tell()
        self._muxed += 1

    def _new_stream(self) -> "VideoStream":
        """Its encoder codes no frame: it is there for the file's header."""
        stream: VideoStream = self._container.add_stream(self._encoder, rate=self._rate)  # type: ignore[assignment]  # of any kind, by the name
        self._configure(stream.codec_context)
        stream.codec_context.open()
        return stream

    def _new_encoder(self) -> "VideoCodecContext":
        from av.codec import CodecContext
        from av.error import FFmpegError

        context: VideoCodecContext = CodecContext.create(self._encoder, "w")  # type: ignore[assignment]  # of any kind
        context.flags = self._stream.codec_context.flags  # whether the parameters go into the file's header
        self._configure(context)
        try:
            context.open()
        except FFmpegError as error:
            raise self._unencodable(error) from None
        return context

    def _configure(self, context: "VideoCodecContext") -> None:
        context.options = ENCODER_OPTIONS[self._encoder]
        context.height, context.width = self._size
        context.pix_fmt = "yuv420p"  # the one kind of H.264 that every browser takes
        context.framerate = self._rate
        context.time_base = TICK
        context.gop_size = self._length
        # Said in the file, so that players undo the very matrix that FFmpeg's scaler applies.
        context.colorspace = context.color_primaries = context.color_trc = BT601
        context.color_range = TV_RANGE

    def _unencodable(self, error: Exception) -> InputError:
        why = getattr(error, "strerror", None) or str(error)
        return unencodable(self._name, self._encoder, self._size, self.clock.fps, why)

    def _unwritable(self, error: "FFmpegError | OSError") -> InputError:
        return InputError(f"{self._name} cannot be written ({error.strerror or error}): make room on its disk.")


def unencodable(name: Path, encoder: str, size: tuple[int, int], fps: float, why: str) -> InputError:
    """The sentence for a video that an encoder does not take."""
    return InputError(
        f"{name} cannot be encoded: the encoder {encoder} does not take {size[0]}x{size[1]} (height x width) at "
        f"{fps:g} frames per second ({why}); give smaller frames, both sides even."
    )


def _start_codes(packet: "Packet[Any]") -> "Packet[Any]":
    """An H.264 packet as encoders give it, of one as MP4 and Matroska hold it: units after their lengths, 4 bytes."""
    from av import Packet

    data, units, at = bytes(packet), list[bytes](), 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        units.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    copy = Packet(b"".join(b"\0\0\0\1" + unit for unit in units))
    copy.pts, copy.dts, copy.duration, copy.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
    copy.is_keyframe = packet.is_keyframe
    return copy
