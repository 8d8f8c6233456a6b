"""Things that several sources use in turn, one caller at a time each: fair, whatever the sources' pace.

What is free goes to the source that has the fewest in use; among those, to the one whose last turn began longest ago;
among callers of one source, to the one that asked first. So with one thing to share, every source waits for at most one
turn of each other source, a file that always asks and a camera that seldom does alike, and one that does not ask holds
up nobody. With as many things as sources, each has one to itself.
"""

import itertools
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from splitmerge.errors import EngineError

__all__ = ["Turns"]

T = TypeVar("T")

REMEMBERED = 1024
"""Sources whose last turn is known; one that is forgotten counts as one that had none, which is about as long ago. In a
process that goes through thousands of videos they would only grow in number.
"""


@dataclass(frozen=True, eq=False)
class _Ticket:
    """`number` is the order of asking."""

    source: object
    number: int


class Turns(Generic[T]):
    """Hands out `things` (one that is listed twice may be used by two callers). A source is any object that can be a
    dictionary's key, and is kept for a while after its last turn.
    """

    def __init__(self, things: Iterable[T]) -> None:
        self.idle = list(things)
        self._changed, self._closed = threading.Condition(), False
        self._waiting: list[_Ticket] = []
        self._at_work: dict[_Ticket, threading.Thread] = {}
        self._last: dict[object, int] = {}  # the number of each source's last turn, the oldest first
        self._numbers = itertools.count(1)
        self._dropped: list[T] = []

    @contextmanager
    def turn(self, source: object) -> Iterator[T]:
        """A thing that nobody else uses meanwhile. Raises EngineError once they were closed."""
        ticket, thing = self._take(source)
        try:
            yield thing
        finally:
            with self._changed:
                del self._at_work[ticket]
                if thing not in self._dropped:
                    self.idle.append(thing)
                self._changed.notify_all()

    def _take(self, source: object) -> tuple[_Ticket, T]:
        with self._changed:
            ticket = _Ticket(source, next(self._numbers))
            self._waiting.append(ticket)
            try:
                while not self._closed and not (self.idle and self._next() is ticket):
                    self._changed.wait()
                if self._closed:
                    raise EngineError("This executor has been closed: make a new one.")
                thing = self.idle[-1]
                self._at_work[ticket] = threading.current_thread()
                self._last.pop(source, None)
                self._last[source] = next(self._numbers)
                if len(self._last) > REMEMBERED:
                    del self._last[next(iter(self._last))]
                self.idle.pop()
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()  # there may be one idle for the next, too
        return ticket, thing

    def _next(self) -> _Ticket:
        in_use = Counter(ticket.source for ticket in self._at_work)
        return min(self._waiting, key=lambda t: (in_use[t.source], self._last.get(t.source, 0), t.number))

    def drop(self, thing: T) -> None:
        """Hand `thing` out no more."""
        with self._changed:
            self._dropped.append(thing)
            self.idle = [other for other in self.idle if other is not thing]

    def close(self) -> None:
        """Turn away those that wait, and wait for those at work. (This thread's own was interrupted, if it has any.)"""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            mine = threading.current_thread()
            while any(thread.is_alive() for thread in self._at_work.values() if thread is not mine):
                self._changed.wait(1.0)
