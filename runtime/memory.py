"""What a source's earlier frames leave for its next: with a deadline, the pixels of a scene that stands still.

It belongs to the source, not to the contexts that compute the frame, which serve other sources in between.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from runtime.partial import Mosaic, Scene
from splitmerge.package import Cut

__all__ = ["Memories", "Memory", "Newer"]

Newer = Callable[[], tuple[NDArray[np.uint8], float | None] | None]
"""A source's newest frame uint8 [H,W,3], if it is newer than the one that waited for its turn, and its deadline."""


class Memory:
    """A scene, its padded label map uint8 of `shape` so far, and the chunks of split batches in the order that they
    are due. Used by one frame at a time.
    """

    def __init__(self, cut: Cut, shape: tuple[int, int], schedule: list[range]) -> None:
        self.mosaic, self.schedule = Mosaic(cut, shape), schedule
        self._scene = Scene()

    def held(self, frame_bgr: NDArray[np.uint8]) -> set[int]:
        """The split batches whose labels are good for this frame, too; the others are forgotten."""
        if self._scene.changed(frame_bgr):
            self.mosaic.batches.clear()
        return set(self.mosaic.batches)

    def nothing(self) -> set[int]:
        """Forget all: the next frame is computed whole, and nobody compares it with another."""
        self._scene = Scene()
        self.mosaic.batches.clear()
        return set()

    def go_on_with(self, left: list[range]) -> None:
        """The chunks that were left out of a frame come first in the next."""
        self.schedule = [*left, *self.schedule[: len(self.schedule) - len(left)]]


class Memories:
    """Of one source: a memory for each of its frames that are at work at the same time.

    The one used last is taken first, so that frames that come one by one all have the same.
    """

    def __init__(self, waiting_counts: bool = True) -> None:
        """`waiting_counts`: whether a deadline goes on while a frame waits for its turn, as of live sources, whose
        results are to be of a bounded age; a file's deadline is of computing.
        """
        self.token = object()  # stands for the source where it takes turns, which may remember it for longer
        self._waiting_counts = waiting_counts
        self._free: list[Memory] = []
        self._lock = threading.Lock()

    def until(self, until: float | None, waited_s: float) -> float | None:
        """A frame's deadline after it waited for its turn."""
        return until if until is None or self._waiting_counts else until + waited_s

    @contextmanager
    def one(self, make: Callable[[], Memory]) -> Iterator[Memory]:
        """A memory that no other frame uses meanwhile."""
        with self._lock:
            memory = self._free.pop() if self._free else None
        memory = memory or make()
        try:
            yield memory
        finally:
            with self._lock:
                self._free.append(memory)
