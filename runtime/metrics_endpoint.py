"""A run's numbers in Prometheus' text format, for the path /metrics of the live page's server."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from runtime.monitor import Monitor
from runtime.sinks import Result

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]

BUCKETS_S = (0.005, 0.01, 0.02, 0.033, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10)
"""Upper bounds of the latency histogram in seconds: from a GPU's frame to a CPU's."""


class Metrics:
    """The metrics of one run, in a registry of their own, so that two runs of a process do not mix."""

    def __init__(self, monitor: Monitor) -> None:
        self._registry = registry = CollectorRegistry()
        self._monitor = monitor
        self._frames = Counter("splitmerge_frames", "Frames that were labelled.", registry=registry)
        self._dropped = Counter(
            "splitmerge_dropped_frames", "Frames of the source that were given up.", registry=registry
        )
        self._latency = Histogram(
            "splitmerge_latency_seconds", "From a decoded frame to its labels.", buckets=BUCKETS_S, registry=registry
        )
        self._reconnects = Counter("splitmerge_reconnects", "Times a source was opened again.", registry=registry)
        self._reconnects_told = 0
        self._newest = Gauge(
            "splitmerge_last_frame_timestamp_seconds", "When a frame was last labelled.", registry=registry
        )
        fps = Gauge("splitmerge_frames_per_second", "Rate over the last seconds.", registry=registry)
        fps.set_function(lambda: monitor.fps)
        self._area = Gauge(
            "splitmerge_class_area_ratio", "Share of the newest frame's pixels.", ["class"], registry=registry
        )

    def take(self, result: Result) -> None:
        """The sink: count a result."""
        self._frames.inc()
        self._dropped.inc(result.dropped_before)
        self._latency.observe(result.latency_ms / 1000)
        self._reconnects.inc(max(0, result.reconnects - self._reconnects_told))
        self._reconnects_told = max(self._reconnects_told, result.reconnects)
        self._newest.set_to_current_time()

    def text(self) -> bytes:
        """What Prometheus reads, of the content type CONTENT_TYPE_LATEST."""
        for name, share in self._monitor.areas().items():
            self._area.labels(name).set(share)
        return generate_latest(self._registry)
