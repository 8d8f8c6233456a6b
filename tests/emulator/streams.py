"""Streams: each runs its work in order on a thread of its own, some time after it was enqueued.

What must have happened before what is known by vector clocks, not by luck: each operation carries, for each stream, the
number of the last operation that it comes after (its own stream's, those of events waited for, and all that the host
had synchronised with when it was enqueued). Two uses of the same bytes, one of them writing, that no clock orders are a
race, however they happened to run. Likewise the host "knows" an operation to be done only once it synchronised with it:
results reach page-locked memory at that moment and not before.
"""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emulator.memory import Region, handles

if TYPE_CHECKING:
    from emulator.device import DeviceState

__all__ = ["Clock", "EventState", "Operation", "StreamState", "Work", "merge"]

Clock = dict[int, int]
"""Of each stream, by handle: the number of the last operation that is covered."""


def merge(into: Clock, other: Clock) -> None:
    """Let `into` cover what `other` covers."""
    for stream, sequence in other.items():
        if into.get(stream, 0) < sequence:
            into[stream] = sequence


@dataclass(frozen=True, eq=False)
class Work:
    """Something for a stream to do, as often as it is enqueued.

    `run` does it on the stream's thread and may give a function that makes the result visible when `seconds` are over.
    `submitted` is called when it is enqueued, `known` when the host has synchronised with it.
    """

    kind: str
    label: str
    regions: tuple[Region, ...] = ()
    run: Callable[["Operation"], Callable[[], None] | None] = lambda operation: None
    seconds: float = 0.0
    submitted: Callable[["Operation"], None] = lambda operation: None
    known: Callable[["Operation"], None] | None = None


@dataclass(eq=False)
class Operation:
    """One enqueued piece of work. `note` is for the work's own use."""

    work: Work
    stream: "StreamState"
    sequence: int
    clock: Clock
    dependencies: list["Operation"]
    done: threading.Event = field(default_factory=threading.Event)
    end: float = 0.0
    note: object = None

    def covered_by(self, clock: Clock) -> bool:
        """Whether what has this clock comes after this operation."""
        return clock.get(self.stream.handle, 0) >= self.sequence


class StreamState:
    """The driver's side of a stream. `blocking` streams are ordered with the default stream, whose handle is 0."""

    def __init__(self, device: "DeviceState", blocking: bool, default: bool = False) -> None:
        # the default stream's handle is 0 for the caller; clocks need one number a device
        self.handle = -1 - device.index if default else next(handles)
        self.device, self.blocking, self.default = device, blocking, default
        self.clock: Clock = {}
        self.sequence = 0
        self.last: Operation | None = None
        self.capture: object = None
        self.destroyed = False
        self._queue: queue.SimpleQueue[Operation | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work, name=f"{self}", daemon=True)
        self.thread.start()

    def __str__(self) -> str:
        name = "the default stream" if self.default else f"stream {self.handle:#x}"
        return f"{name} of device {self.device.index}"

    def enqueue(self, operation: Operation) -> None:
        self._queue.put(operation)

    def finish(self) -> None:
        """Let the thread end after what is enqueued."""
        self.destroyed = True
        self._queue.put(None)

    def _work(self) -> None:
        while (operation := self._queue.get()) is not None:
            for dependency in operation.dependencies:
                dependency.done.wait()
            operation.dependencies.clear()
            try:
                self.device.execute(operation)
            finally:
                operation.done.set()
            del operation


class EventState:
    """The driver's side of an event: `marker` is the operation that it was last recorded as."""

    def __init__(self, device: "DeviceState", timed: bool) -> None:
        self.handle, self.device, self.timed = next(handles), device, timed
        self.marker: Operation | None = None
        self.captured: object = None
