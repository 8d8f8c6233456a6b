"""A run's numbers in Prometheus' text format, for the path /metrics of the live page's server.

Every series has the label `source`, the name that the source has in outputs, which holds no credentials.
"""

from collections.abc import Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from runtime.monitor import Monitor
from runtime.sinks import Result

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]

BUCKETS_S = (0.005, 0.01, 0.02, 0.033, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10)
"""Upper bounds of the latency histogram in seconds: from a GPU's frame to a CPU's."""


class Metrics:
    """The metrics of one run's sources, in a registry of their own, so that two runs of a process do not mix."""

    def __init__(self, monitors: Mapping[str, Monitor]) -> None:
        self._registry = registry = CollectorRegistry()
        self._monitors = monitors
        label = ["source"]
        self._frames = Counter("splitmerge_frames", "Frames that were labelled.", label, registry=registry)
        self._dropped = Counter(
            "splitmerge_dropped_frames", "Frames of the source that were given up.", label, registry=registry
        )
        self._latency = Histogram(
            "splitmerge_latency_seconds",
            "From a decoded frame to its labels.",
            label,
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._reconnects = Counter(
            "splitmerge_reconnects", "Times a source was opened again.", label, registry=registry
        )
        self._reconnects_told = dict.fromkeys(monitors, 0)
        self._newest = Gauge(
            "splitmerge_last_frame_timestamp_seconds", "When a frame was last labelled.", label, registry=registry
        )
        self._running = Gauge("splitmerge_source_running", "1 until the source ends.", label, registry=registry)
        fps = Gauge("splitmerge_frames_per_second", "Rate over the last seconds.", label, registry=registry)
        self._area = Gauge(
            "splitmerge_class_area_ratio", "Share of the newest frame's pixels.", [*label, "class"], registry=registry
        )
        for source, monitor in monitors.items():
            for metric in (self._frames, self._dropped, self._latency, self._reconnects, self._newest):
                metric.labels(source)  # is there, at 0, before the first frame
            fps.labels(source).set_function(partial(getattr, monitor, "fps"))

    def take(self, source: str, result: Result) -> None:
        """Count a source's result."""
        self._frames.labels(source).inc()
        self._dropped.labels(source).inc(result.dropped_before)
        self._latency.labels(source).observe(result.latency_ms / 1000)
        self._reconnects.labels(source).inc(max(0, result.reconnects - self._reconnects_told[source]))
        self._reconnects_told[source] = max(self._reconnects_told[source], result.reconnects)
        self._newest.labels(source).set_to_current_time()

    def text(self) -> bytes:
        """What Prometheus reads, of the content type CONTENT_TYPE_LATEST."""
        for source, monitor in self._monitors.items():
            self._running.labels(source).set(monitor.state == "running")
            for name, share in monitor.areas().items():
                self._area.labels(source, name).set(share)
        return generate_latest(self._registry)
