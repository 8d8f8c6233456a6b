"""What a run did and how long each stage took."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.frames import Source, size_text
from runtime.interlaced import REMEDY

__all__ = ["Clock", "Freshness", "Summary"]


@dataclass
class Clock:
    """Time that one stage worked, waiting left out."""

    seconds: float = 0.0
    frames: int = 0

    def add(self, began: float) -> None:
        self.add_ms(1000 * (time.perf_counter() - began))

    def add_ms(self, milliseconds: float) -> None:
        self.seconds += milliseconds / 1000
        self.frames += 1

    @property
    def mean_ms(self) -> float:
        return 1000 * self.seconds / max(1, self.frames)


@dataclass(frozen=True)
class Freshness:
    """Of a live source: frames that were decoded and not computed, computed and not written, and the ages in
    milliseconds from capture to label (p50, p95, p99, max; None where there was no frame)."""

    skipped: int = 0
    unwritten: int = 0
    age_ms: dict[str, float] | None = None


@dataclass(frozen=True)
class Summary:
    """What a run did. Sizes are (height, width) in pixels, stage times means in milliseconds a frame.

    `missing_frames` were promised by the source and could not be decoded. `waiting` is the largest number of frames
    that waited before the compute and the encode stage, `parallel` the frames computed at the same time. `warnings`
    tell of a source that was cut off or lost and of devices that were dropped. `frames_before` are in the outputs
    because an earlier run did them (`--resume`); `frames` and the times are this run's. `interrupted` names the signal
    that ended it early.

    Of a `live` source, `captured = frames + dropped + dropped_by_sinks`: `dropped` were replaced by a newer frame
    before they were computed, `dropped_by_sinks` after, because a sink was slow. `age_ms` is from capture (a frame's
    leaving the decoder) to its labels. `outages`, `stalls`, `attempts`, `reconnects` and `source_lost` are
    `runtime.frames.Events`.
    """

    source: str
    frames: int
    missing_frames: int
    seconds: float
    fps: float
    decode_ms: float
    compute_ms: float
    encode_ms: float
    source_size: tuple[int, int]
    engine_size: tuple[int, int]
    resized: bool
    waiting: tuple[int, int]
    warnings: tuple[str, ...]
    parallel: int = 1
    live: bool = False
    captured: int = 0
    dropped: int = 0
    dropped_by_sinks: int = 0
    age_ms: dict[str, float] | None = None
    outages: int = 0
    stalls: int = 0
    attempts: int = 0
    reconnects: int = 0
    size_changes: int = 0
    source_lost: bool = False
    frames_before: int = 0
    interrupted: str | None = None

    @classmethod
    def of(
        cls,
        source: Source,
        engine_size: tuple[int, int],
        clocks: tuple[Clock, Clock, Clock],
        waiting: tuple[int, int],
        seconds: float,
        parallel: int = 1,
        lost: Sequence[str] = (),
        freshness: Freshness | None = None,
    ) -> "Summary":
        """Of a run that has ended: `clocks` are those of decoding, computing and encoding."""
        decode, compute, encode = clocks
        freshness, events = freshness or Freshness(), source.events
        warnings = [f"{words} The others did its work." for words in lost]
        if source.missing_frames:
            warnings.append(
                f"{source.name} promises {source.frame_count} frames and "
                f"{(source.frame_count or 0) - source.missing_frames} could be decoded: "
                "it is cut off or damaged; the results cover those, copy the source again for the rest."
            )
        if events.lost:
            warnings.append(f"{source.name} was lost ({events.lost}): the results cover the frames before that.")
        if events.still:
            warnings.append(
                f"All frames of {source.name} were the same to the bit: it is a still, or it is interlaced, which "
                f"OpenCV cannot convert; {REMEDY}."
            )
        if events.size_changes:
            warnings.append(
                f"{source.name} changed its size {events.size_changes} times: frames were scaled to the first one's "
                f"{size_text(source.size)} (height x width), so that the outputs keep one size."
            )
        return cls(
            source=source.name,
            frames=encode.frames,
            missing_frames=source.missing_frames,
            seconds=round(seconds, 3),
            fps=round(encode.frames / seconds, 3),
            decode_ms=round(decode.mean_ms, 3),
            compute_ms=round(compute.mean_ms, 3),
            encode_ms=round(encode.mean_ms, 3),
            source_size=source.size,
            engine_size=engine_size,
            resized=source.size != engine_size,
            waiting=waiting,
            warnings=tuple(warnings),
            parallel=parallel,
            live=source.live,
            captured=events.captured if source.live else encode.frames,
            dropped=events.skipped + freshness.skipped,
            dropped_by_sinks=freshness.unwritten,
            age_ms=freshness.age_ms,
            outages=events.outages,
            stalls=events.stalls,
            attempts=events.attempts,
            reconnects=events.reconnects,
            size_changes=events.size_changes,
            source_lost=events.lost is not None,
        )

    @property
    def incomplete(self) -> bool:
        """Whether the source had fewer frames than it was to have."""
        return bool(self.missing_frames) or self.source_lost

    @property
    def slowest_stage(self) -> str:
        """The stage that sets the pace."""
        paces = {"decode": self.decode_ms, "compute": self.compute_ms / self.parallel, "encode": self.encode_ms}
        return max(paces, key=paces.__getitem__)
