"""A source that does not wait: a camera, a stream, or a file that is played like one.

    reader thread (may hang) ──one frame, the newest──> LiveSource ──> whoever iterates

A connection that ends, breaks off or goes silent is opened again, with tenacity's exponential back-off and jitter.
The very first one is not: a wrong address is to be seen at once.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay
from tenacity.stop import stop_base
from tenacity.wait import wait_exponential, wait_random
from tqdm import tqdm

from runtime import connection
from runtime.connection import Connection
from runtime.frames import Events, SourceFrame, checked_size, resized
from runtime.reader import Captured, Lost, Reader
from runtime.source_clock import SourceClock
from splitmerge.errors import InputError

__all__ = ["Limits", "LiveSource"]

LEFT_BEHIND = 4
"""Threads that may hang in a decoder at the same time. With so many, no further connection is tried until one ends."""

WAIT = wait_exponential(multiplier=0.5, max=30) + wait_random(0, 0.5)
"""Seconds before an attempt: 0.5, 1, 2, 4, ... 30, and up to half a second more so that cameras do not come in step."""


@dataclass(frozen=True)
class Limits:
    """When a source counts as stalled (`stall_s` without a frame), and when an outage is given up: after `reconnect`
    attempts in a row (0: none is made) or after `reconnect_s` seconds (0: however long they take).
    """

    stall_s: float = 10.0
    reconnect: int = 20
    reconnect_s: float = 0.0


class LiveSource:
    """Frames as they come. Raises InputError where the source cannot be opened or gives no frame.

    With `live`, the newest frame wins and lost connections are opened again, unless the source `ends` by nature.
    Without, every frame is handed out, the sender waits where it can, and the end of the connection is the end of the
    source. None: live where the stream does not say how many frames it has. `time_s` is the stream's own clock; after
    an outage it goes on where the wall clock is.
    """

    paths: tuple[Path, ...] = ()

    def __init__(
        self, name: str, connect: Callable[[], Connection], limits: Limits, live: bool | None, ends: bool = False
    ) -> None:
        self.name, self.events = name, Events()
        self._connect, self._limits = connect, limits
        self._closed, self._left_behind = threading.Event(), list[Reader]()
        self._reader = Reader(connect, live)
        try:
            first = self._reader.next(limits.stall_s, connection.OPEN_S)
            assert first is not None
            self.size = checked_size(name, first.frame_bgr)
        except Lost as error:
            self.close()
            raise InputError(f"{name} gives no frame ({error}): check the address, and that the sender runs.") from None
        except BaseException:
            self.close()
            raise
        self._first: Captured = first
        self.live = self._reader.newest is True
        self._ends = ends or not self.live
        self.fps, self.frame_count, self.missing_frames = self._reader.fps, self._reader.frame_count, 0
        self._before = 0  # frames of earlier connections
        self._attempts = 0  # of the present outage
        self._clock = SourceClock(first.captured_at)

    def __iter__(self) -> Iterator[SourceFrame]:
        try:
            yield from self._frames()
            if self._ends and self.frame_count and not self._closed.is_set():
                missing = self.frame_count - self._before - self._reader.captured
                self.missing_frames = missing if missing > self.fps else 0  # what it promises is an estimate
        finally:
            self.close()
            self._count()

    def close(self) -> None:
        """End the iterating, also in another thread. A reader that hangs is left behind."""
        self._closed.set()
        self._reader.abandon()

    def _frames(self) -> Iterator[SourceFrame]:
        captured: Captured | None = self._first
        while captured is not None:
            yield self._source_frame(captured)
            try:
                captured = self._reader.next(self._limits.stall_s, connection.OPEN_S)
            except Lost as why:
                captured = self._lost(why)

    def _source_frame(self, captured: Captured) -> SourceFrame:
        size = (captured.frame_bgr.shape[0], captured.frame_bgr.shape[1])
        self.events.saw(captured.frame_bgr)
        return SourceFrame(
            index=self._before + captured.number,
            time_s=self._clock.time_s(captured.position_s, captured.captured_at),
            frame_bgr=resized(captured.frame_bgr, self.size),
            captured_at=captured.captured_at if self.live else None,
            scaled=size != self.size,
        )

    def _lost(self, why: Lost) -> Captured | None:
        """After an outage, the first frame of the next connection; None where there is none."""
        self.events.stalls += why.stalled
        if self._ends:
            self.events.lost = str(why) if why.stalled else None
            return None
        self.events.outages += 1
        self._leave()
        if not self._limits.reconnect:
            self.events.lost = str(why)
            return None
        _tell(f"{self.name}: {why}; connecting again.")
        try:
            captured = self._connected_again(why)
        except (Lost, InputError):
            if not self._closed.is_set():
                self.events.lost = f"{why}, and {self._attempts} attempts to connect again failed"
            return None
        if captured is not None:
            self.events.reconnects += 1
            _tell(f"{self.name}: connected again.")
        return captured

    def _connected_again(self, why: Lost) -> Captured | None:
        losses, self._attempts = iter([why]), 0

        def attempt() -> Captured | None:
            for loss in losses:  # counts as the first attempt, so that there is a pause before the next
                raise loss
            return None if self._closed.is_set() else self._attempt()

        stop: stop_base = stop_after_attempt(self._limits.reconnect + 1)
        if self._limits.reconnect_s:
            stop = stop | stop_after_delay(self._limits.reconnect_s)
        return Retrying(
            stop=stop,
            wait=WAIT,
            retry=retry_if_exception_type((Lost, InputError)),
            sleep=self._pause,
            reraise=True,
        )(attempt)

    def _attempt(self) -> Captured | None:
        self._attempts += 1
        self.events.attempts += 1
        self._left_behind = [reader for reader in self._left_behind if reader.thread.is_alive()]
        if len(self._left_behind) >= LEFT_BEHIND:
            raise Lost(f"{LEFT_BEHIND} earlier connections still hang")
        self._reader = Reader(self._connect, self.live)
        if self._closed.is_set():  # meanwhile: it was the reader before that was abandoned
            self._reader.abandon()
        try:
            captured = self._reader.next(self._limits.stall_s, connection.OPEN_S)
        except (Lost, InputError):
            self._leave()
            raise
        self._clock.interrupt()
        return captured

    def _pause(self, seconds: float) -> None:
        self._closed.wait(seconds)

    def _leave(self) -> None:
        """Leave the present reader behind; its frames are counted."""
        self._reader.abandon()
        self._count()
        self._left_behind.append(self._reader)

    def _count(self) -> None:
        reader = self._reader
        self._before += reader.captured
        self.events.captured += reader.captured
        self.events.skipped += reader.skipped
        reader.captured = reader.skipped = 0


def _tell(words: str) -> None:
    tqdm.write(f"splitmerge: {words}", file=sys.stderr)
