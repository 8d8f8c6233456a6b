"""Whole frames spread over devices: each has an executor of its own and takes the next frame when it is free.

More frames a second than sharing every frame's split batches, because no device waits for another; the price is that a
frame takes as long as its device needs for all of it.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from runtime.executor import Executor
from runtime.lane import Labels
from runtime.memory import Memories, Newer
from runtime.stream import FrameStats
from runtime.turns import Turns
from splitmerge.errors import EngineError

__all__ = ["FrameShards"]


class FrameShards:
    """Executors on different devices, used by as many threads as there are executors. Closes them.

    A device that fails is dropped and its frame done again by another; the last one is kept.
    """

    def __init__(self, executors: Sequence[Executor]) -> None:
        self.parallel = sum(executor.parallel for executor in executors)
        self.why = executors[0].why
        self._lock = threading.Lock()
        self._all, self._alive = list(executors), list(executors)
        self._turns = Turns(executor for executor in executors for _ in range(executor.parallel))
        self._own = Memories()

    def __enter__(self) -> "FrameShards":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turns.close()
        for executor in self._all:
            executor.close()

    @property
    def facts(self) -> dict[str, object]:
        """What was chosen, for JSON."""
        devices = [device for executor in self._all for device in executor.devices]
        return self._all[0].facts | {"devices": devices, "shard": "frames"}

    def segment(self, frame_bgr: NDArray[np.uint8]) -> Labels:
        """Labels uint8 [H,W] of a frame uint8 [H,W,3], blue-green-red, as `Executor.segment`."""
        return self.measure(frame_bgr)[0]

    def measure(
        self,
        frame_bgr: NDArray[np.uint8],
        until: float | None = None,
        source: Memories | None = None,
        newer: Newer | None = None,
    ) -> tuple[Labels, FrameStats]:
        """`Executor.measure`. Raises EngineError where the last device fails."""
        lost: tuple[str, ...] = ()
        source = source or self._own
        waited_s = 0.0
        while True:
            asked = time.perf_counter()
            with self._turns.turn(source.token) as executor:
                now_s = time.perf_counter() - asked
                waited_s, until = waited_s + now_s, source.until(until, now_s)
                if newer is not None and (instead := newer()):
                    frame_bgr, until = instead
                try:
                    labels, stats = executor.measure(frame_bgr, until, source)
                except EngineError as error:
                    if not self._drop(executor):
                        raise
                    lost += (f"{executor.device_names} failed and was dropped: {error}",)
                else:
                    return labels, replace(stats, waited_ms=1e3 * waited_s, lost=lost + stats.lost)

    def _drop(self, executor: Executor) -> bool:
        """Whether the executor was given up; the last one is not."""
        with self._lock:
            if self._alive == [executor]:
                return False
            if executor in self._alive:
                self._alive.remove(executor)
                self._turns.drop(executor)
            return True
