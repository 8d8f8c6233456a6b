"""What ran when, for tests of overlap and for a picture."""

import threading
import time
from dataclasses import dataclass

__all__ = ["Span", "Timeline"]


@dataclass(frozen=True)
class Span:
    """One piece of work: `kind` is compute, h2d, d2h, d2d or memset; times are seconds since the emulator started."""

    device: int
    stream: int
    kind: str
    label: str
    start: float
    end: float

    def overlaps(self, other: "Span") -> bool:
        """Whether both were running at some moment."""
        return self.start < other.end and other.start < self.end


class Timeline:
    """Spans in the order in which they ended."""

    def __init__(self) -> None:
        self._zero = time.perf_counter()
        self._lock = threading.Lock()
        self._spans: list[Span] = []

    def now(self) -> float:
        """Seconds since the emulator started."""
        return time.perf_counter() - self._zero

    def add(self, span: Span) -> None:
        with self._lock:
            self._spans.append(span)

    @property
    def spans(self) -> list[Span]:
        with self._lock:
            return list(self._spans)

    def of(self, device: int | None = None, kind: str | None = None, label: str | None = None) -> list[Span]:
        """The spans of one device, kind or label, by start."""
        found = [
            span
            for span in self.spans
            if device in (None, span.device) and kind in (None, span.kind) and label in (None, span.label)
        ]
        return sorted(found, key=lambda span: span.start)
