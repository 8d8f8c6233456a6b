"""What a run is doing now with one source, for whoever looks on: counts, rate, latency, the newest frame.

The run only leaves its newest result here and counts; whatever costs time (drawing, JPEG, percentiles, class areas) is
done on the thread of the one who asks, once for each frame at most, so that no viewer slows the run.
"""

import threading
import time
from collections import deque
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.drawing import Overlay
from runtime.sinks import Result, class_shares
from splitmerge.labels import LabelClass, palette_bgr

__all__ = ["Monitor"]

RECENT = 512
"""Latencies that percentiles are taken of."""

RATE_WINDOW_S = 5.0
"""The rate is that of the frames of the last seconds: a source that stands still shows 0 after these."""

LARGEST_SIDE = 960
"""Pixels of the picture's longer side: enough to look at, a quarter of the work of a full HD frame."""


class Monitor:
    """Takes a source's results and answers questions about them from any thread. `now` is the clock, in seconds.

    `state` is running, ended or failed.
    """

    def __init__(
        self,
        classes: tuple[LabelClass, ...],
        alpha: float = 0.55,
        source: str = "source",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.classes, self.source, self.state = classes, source, "running"
        self.frames = self.dropped = self.reconnects = 0
        self._alpha, self._table, self._now = alpha, palette_bgr(classes), now
        self._began = now()
        self._newest: Result | None = None
        self._latencies: deque[float] = deque(maxlen=RECENT)
        self._times: deque[float] = deque(maxlen=4096)
        self._lock, self._drawing = threading.Lock(), threading.Lock()
        self._drawn: tuple[Result, bytes] | None = None

    def take(self, result: Result) -> None:
        """The sink: keep the result as the newest one and count it."""
        with self._lock:
            self._newest = result
            self.frames += 1
            self.dropped += result.dropped_before
            self.reconnects = max(self.reconnects, result.reconnects)
            self._latencies.append(result.latency_ms)
            self._times.append(self._now())

    @property
    def newest(self) -> Result | None:
        """The newest result, None before the first."""
        return self._newest

    @property
    def fps(self) -> float:
        """Frames per second over the last RATE_WINDOW_S, or since the run began if that is less."""
        now = self._now()
        with self._lock:
            recent = sum(1 for moment in self._times if now - moment <= RATE_WINDOW_S)
        return recent / min(RATE_WINDOW_S, max(now - self._began, 1e-3))

    def areas(self) -> dict[str, float]:
        """The newest frame's share of each class, 0 to 1; all 0 before the first."""
        newest = self._newest
        return (
            dict.fromkeys((c.name for c in self.classes), 0.0)
            if newest is None
            else class_shares(newest.labels, self.classes)
        )

    def status(self) -> dict[str, object]:
        """What the page shows, ready for JSON. Latencies in milliseconds, of the last RECENT frames."""
        with self._lock:
            newest, latencies = self._newest, list(self._latencies)
            counts = {"frames": self.frames, "dropped": self.dropped, "reconnects": self.reconnects}
        p50, p95, p99 = np.percentile(latencies, (50, 95, 99)).round(1).tolist() if latencies else (None,) * 3
        areas = self.areas()
        return {
            "source": self.source,
            "state": self.state,
            **counts,
            "frame": None if newest is None else newest.frame.index,
            "time_s": None if newest is None else newest.frame.time_s,
            "split_batches": None if newest is None else newest.stats.split_batches,
            "fps": round(self.fps, 2),
            "latency_ms": {"p50": p50, "p95": p95, "p99": p99},
            "classes": [{"name": c.name, "rgb": c.rgb, "area": round(areas[c.name], 4)} for c in self.classes],
        }

    def jpeg(self) -> bytes | None:
        """The newest frame with its labels over it, None before the first."""
        with self._drawing:
            newest = self._newest
            if newest is None:
                return None
            if self._drawn is None or self._drawn[0] is not newest:
                self._drawn = newest, _jpeg(newest, self._table, self._alpha)
            return self._drawn[1]


def _jpeg(result: Result, table_bgr: NDArray[np.uint8], alpha: float) -> bytes:
    frame_bgr, labels = result.frame.frame_bgr, result.labels
    scale = LARGEST_SIDE / max(labels.shape)
    if scale < 1:
        size = max(1, round(labels.shape[1] * scale)), max(1, round(labels.shape[0] * scale))
        frame_bgr = np.asarray(cv2.resize(frame_bgr, size, interpolation=cv2.INTER_AREA), np.uint8)
        labels = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    canvas = np.empty_like(frame_bgr)
    height, width = labels.shape
    Overlay(height, width, table_bgr, alpha).draw(frame_bgr, labels, canvas)
    return cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
