"""A bounded queue between two threads that can be broken off from either side."""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Channel", "Stopped"]

T = TypeVar("T")


class Stopped(Exception):
    """The other side of a channel gave up: nothing more can be put or got. Not an error to show."""


class Channel(Generic[T]):
    """At most `depth` items in flight; `put` waits for room and iterating waits for items.

    `close` ends the stream after what was put; `stop` ends it now, on both sides. `fullest` is the largest number of
    items that ever waited: more than 0 means that the sides worked at the same time. `replaced` counts what `newer`
    gave another item for.
    """

    def __init__(self, depth: int) -> None:
        self.depth, self.fullest, self.replaced = depth, 0, 0
        self._items: deque[T] = deque()
        self._last: T | None = None
        self._changed = threading.Condition()
        self._closed = self._stopped = False

    def put(self, item: T) -> None:
        """Add an item, waiting for room. Raises Stopped once the channel was stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._items) < self.depth)
            if self._stopped:
                raise Stopped
            self._items.append(item)
            self.fullest = max(self.fullest, len(self._items))
            self._changed.notify_all()

    def offer(self, item: T) -> int:
        """Add an item without waiting: where there is no room, the oldest one makes it. Gives how many were dropped.

        Raises Stopped once the channel was stopped.
        """
        with self._changed:
            if self._stopped:
                raise Stopped
            dropped = max(0, len(self._items) + 1 - self.depth)
            for _ in range(dropped):
                self._items.popleft()
            self._items.append(item)
            self.fullest = max(self.fullest, len(self._items))
            self._changed.notify_all()
            return dropped

    def newer(self, than: T) -> T | None:
        """An item that waits, to be used in the stead of `than`, if that is the last one that was got; otherwise None,
        so that nothing overtakes what another thread got meanwhile.
        """
        with self._changed:
            if self._stopped or not self._items or self._last is not than:
                return None
            self.replaced += 1
            return self._got()

    def _got(self) -> T:
        self._last = self._items.popleft()
        self._changed.notify_all()
        return self._last

    def __len__(self) -> int:
        """How many items wait; those of a stopped channel are never got."""
        with self._changed:
            return len(self._items)

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._closed or self._items)
                if self._stopped:
                    raise Stopped
                if not self._items:
                    return
                item = self._got()
            yield item

    def close(self) -> None:
        """No more items will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Wake both sides and let them end."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
