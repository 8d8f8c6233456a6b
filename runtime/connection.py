"""One connection to a live source: opened, read frame by frame, closed. It may hang; `runtime.reader` copes with that.

OpenCV's FFmpeg does the network and the decoding; it is there anyway, takes time limits for opening and reading, and
gives the stream's own times. (What it does badly: opening looks at a stream for seconds before the first frame, and
connections are opened one at a time in a process.)
"""

import sys
import time
from collections.abc import Iterator
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.frames import Source, SourceFrame, rate_or_default, read_on, silence_decoder
from splitmerge.errors import InputError

__all__ = ["OPEN_S", "Connection", "Paced", "Stream"]

OPEN_S = 20.0
"""Seconds that opening may take: FFmpeg waits for a key frame, then watches for up to 5 to learn the codecs."""

SLACK_S = 2.0
"""How much later than the watchdog FFmpeg gives up, so that an abandoned read ends and its thread with it."""

Read = tuple[NDArray[np.uint8], float | None]
"""A frame uint8 [H,W,3] BGR and its time in the stream in seconds, None where the stream has no clock."""


class Connection(Protocol):
    """`fps` is the stream's rate, `frame_count` what it promises, None where it goes on."""

    fps: float
    frame_count: int | None

    def read(self) -> Read | None:
        """The next frame; None where the stream has ended or broken off."""

    def close(self) -> None: ...


class Stream:
    """A camera, a URL or standard input (`-`). Raises InputError, naming it `shown`, where it cannot be opened."""

    def __init__(self, target: int | str, shown: str, stall_s: float) -> None:
        silence_decoder()
        if target == "-":
            if sys.stdin is None or sys.stdin.isatty():
                raise InputError("Standard input is a terminal, not a video: pipe one in, as in `cat a.mkv | ...`.")
            target = "pipe:0"
        if isinstance(target, int) or target.startswith("/dev/"):
            self._capture = cv2.VideoCapture(target)
        else:
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_S, cv2.CAP_PROP_READ_TIMEOUT_MSEC, stall_s + SLACK_S]
            milliseconds = [int(v * 1000) if i % 2 else int(v) for i, v in enumerate(limits)]
            self._capture = cv2.VideoCapture(target, cv2.CAP_FFMPEG, milliseconds)
        if not self._capture.isOpened():
            raise InputError(
                f"{shown} cannot be opened as a live source: it refuses the connection, sends no video, or is not "
                "there; check the address, and that the sender runs."
            )
        self.fps = rate_or_default(self._capture.get(cv2.CAP_PROP_FPS))
        promised = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frame_count = int(promised) if promised > 0 else None

    def read(self) -> Read | None:
        frame = read_on(self._capture)
        if frame is None:
            return None
        milliseconds = float(self._capture.get(cv2.CAP_PROP_POS_MSEC))
        known = milliseconds >= 0 and np.isfinite(milliseconds)
        return frame, milliseconds / 1000 if known else None

    def close(self) -> None:
        self._capture.release()


class Paced:
    """A file that is played as a camera would film it: each frame at its time, as a rehearsal for a live source."""

    def __init__(self, source: Source) -> None:
        self._source, self.fps, self.frame_count = source, source.fps, source.frame_count
        self._frames: Iterator[SourceFrame] = iter(source)
        self._began: float | None = None

    def read(self) -> Read | None:
        frame = next(self._frames, None)
        if frame is None:
            return None
        now = time.perf_counter()
        self._began = now - frame.time_s if self._began is None else self._began
        time.sleep(max(0.0, self._began + frame.time_s - now))
        return frame.frame_bgr, frame.time_s

    def close(self) -> None:
        self._source.close()
