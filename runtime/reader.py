"""A thread that reads one connection, is watched while it does, and can be left behind while it hangs."""

import atexit
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.connection import Connection
from splitmerge.errors import SplitmergeError

__all__ = ["Captured", "Lost", "Reader"]

PARTING_S = 3.0
"""Seconds that the process waits at its end for readers that still read: more than a frame takes, and more than FFmpeg
is slower than the watchdog to give up (`runtime.connection.SLACK_S`)."""


class Lost(Exception):
    """The connection has ended, broken off or gone silent. `stalled` tells the last from the others."""

    def __init__(self, why: str, stalled: bool = False) -> None:
        super().__init__(why)
        self.stalled = stalled


@dataclass(frozen=True)
class Captured:
    """A frame as it left the decoder: the `number`-th of its connection from 0, with its own time where it has one."""

    number: int
    frame_bgr: NDArray[np.uint8]
    position_s: float | None
    captured_at: float


class Reader:
    """Opens `connect()` and reads it in a thread of its own.

    One frame waits at most. With `newest`, one that nobody took is replaced by the next and counted in `skipped`;
    otherwise the reading waits. None: the first where the stream does not say how many frames it has.

    A thread that hangs in the decoder cannot be ended from outside: `abandon` leaves it behind, and it closes its
    connection and ends once the decoder comes back.
    """

    def __init__(self, connect: Callable[[], Connection], newest: bool | None) -> None:
        self._connect, self.newest = connect, newest
        self.captured = self.skipped = 0
        self.fps = 0.0
        self.frame_count: int | None = None
        self._changed = threading.Condition()
        self._waiting: Captured | None = None
        self._reading_since: float | None = time.perf_counter()
        self._opened = self._ended = self._abandoned = False
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="reader", daemon=True)
        _readers.add(self)
        self.thread.start()

    def next(self, stall_s: float, open_s: float) -> Captured | None:
        """The next frame; None once abandoned. Raises Lost at the end of the connection, after `stall_s` without a
        frame and where opening takes longer than `open_s`; raises what opening raised.
        """
        with self._changed:
            while True:
                if self._waiting is not None:
                    captured, self._waiting = self._waiting, None
                    self._changed.notify_all()
                    return captured
                if self._abandoned:
                    return None
                if self._ended:
                    raise self._error or Lost("the stream ended")
                limit = stall_s if self._opened else open_s
                since = self._reading_since or time.perf_counter()
                left = since + limit - time.perf_counter()
                if left <= 0:
                    raise Lost(f"no frame for {limit:g} s", stalled=True)
                self._changed.wait(left)

    def abandon(self) -> None:
        """Want no more frames. One that still waits counts as skipped."""
        with self._changed:
            self._abandoned = True
            self.skipped += self._waiting is not None
            self._waiting = None
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            connection = self._connect()
            try:
                self.fps, self.frame_count = connection.fps, connection.frame_count
                if self.newest is None:
                    self.newest = self.frame_count is None
                self._read(connection)
            finally:
                connection.close()
        except SplitmergeError as error:
            self._error = Lost(str(error)) if self._opened else error
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _read(self, connection: Connection) -> None:
        while True:
            got = connection.read()
            now = time.perf_counter()
            with self._changed:
                if got is None or self._abandoned:
                    return
                captured = Captured(self.captured, *got, now)
                self._opened, self._reading_since = True, None
                while not self.newest and self._waiting is not None and not self._abandoned:
                    self._changed.wait()
                if self._abandoned:
                    return
                self.captured += 1
                self.skipped += self._waiting is not None
                self._waiting, self._reading_since = captured, time.perf_counter()
                self._changed.notify_all()


_readers: "weakref.WeakSet[Reader]" = weakref.WeakSet()


def _see_off() -> None:
    # A decoder that comes back into an interpreter that is being taken down aborts the process: the run is done, its
    # exit code would be 134. (Not the run's own end: a source that is given up must not hold up its outputs.)
    end = time.monotonic() + PARTING_S
    readers = list(_readers)
    for reader in readers:
        reader.abandon()
    for reader in readers:
        reader.thread.join(max(0.0, end - time.monotonic()))


atexit.register(_see_off)
