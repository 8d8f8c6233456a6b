"""The three stages of a pipeline, each to be run in a thread of its own, and the state that they share."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from runtime.ages import Ages
from runtime.channel import Channel, Stopped
from runtime.frames import resized
from runtime.live import LiveSource
from runtime.ordered import in_order
from runtime.relay import relay
from runtime.segmenter import MeasuredSegmenter
from runtime.sinks import Result, Sink
from runtime.sources import Source, SourceFrame
from runtime.summary import Clock

__all__ = ["DEPTH", "Stages", "at_source_size"]

DEPTH = 4
"""Frames that may wait between two stages: enough to even out their times, little enough for 4K frames."""


@dataclass(frozen=True)
class _Decoded:
    """`ready_at` is the `time.perf_counter` of a live frame's capture, and otherwise of its being ready to compute."""

    frame: SourceFrame
    input_bgr: NDArray[np.uint8]
    ready_at: float


@dataclass
class Stages:
    """Decoding, computing and encoding the frames of one run (`runtime.pipeline`)."""

    source: Source
    segmenter: MeasuredSegmenter
    sinks: Sequence[Sink]
    size: tuple[int, int]
    bar: "tqdm[None]"
    deadline_ms: float = 0
    decoded: Channel[_Decoded] = field(default_factory=lambda: Channel(DEPTH))
    labelled: Channel[Result] = field(default_factory=lambda: Channel(DEPTH))
    clocks: tuple[Clock, Clock, Clock] = field(default_factory=lambda: (Clock(), Clock(), Clock()))
    errors: list[BaseException] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    ages: Ages = field(default_factory=Ages)
    skipped: int = 0
    taken: int = 0
    unwritten: int = 0
    last_index: int = -1

    def decode(self, limit: int | None) -> None:
        frames = itertools.islice(self.source, limit)
        began = time.perf_counter()
        for frame in frames:
            input_bgr = resized(frame.frame_bgr, self.size)
            self.clocks[0].add(began)
            self.decoded.put(_Decoded(frame, input_bgr, time.perf_counter()))
            began = time.perf_counter()
        self.decoded.close()

    def decode_live(self) -> None:
        began = time.perf_counter()
        for frame in self.source:
            self.clocks[0].add(began)
            try:
                # Another size is for the compute stage to make, of those frames that get there.
                self.skipped += self.decoded.offer(_Decoded(frame, frame.frame_bgr, frame.captured_at or began))
            except Stopped:
                self.skipped += 1
                raise
            began = time.perf_counter()
        self.decoded.close()

    def compute_live(self, limit: int | None) -> None:
        relay(self.label, self.counted(), self.deliver, self.segmenter.parallel, limit, self.end)
        self.end()  # no more is wanted, nor a further connection waited for
        self.labelled.close()

    def counted(self) -> Iterator[_Decoded]:
        for item in self.decoded:
            self.taken += 1
            yield item

    @property
    def given_up(self) -> int:
        """Frames of a live source that were taken to be computed and never were, because the run was ended."""
        return self.taken - self.clocks[1].frames

    def deliver(self, result: Result) -> None:
        age_ms = 1000 * (time.perf_counter() - (result.frame.captured_at or 0.0))
        self.ages.add(age_ms)
        self.clocks[1].add_ms(result.compute_ms)
        self.lost.extend(result.stats.lost)
        self.unwritten += self.labelled.offer(replace(result, latency_ms=age_ms))

    def compute(self) -> None:
        for result in in_order(self.label, self.decoded, self.segmenter.parallel):
            self.clocks[1].add_ms(result.compute_ms)
            self.lost.extend(result.stats.lost)
            self.labelled.put(result)
        self.labelled.close()

    def label(self, item: _Decoded) -> Result:
        began = time.perf_counter()

        def until() -> float | None:
            return (item.frame.captured_at or began) + self.deadline_ms / 1e3 if self.deadline_ms else None

        def newer() -> tuple[NDArray[np.uint8], float | None] | None:
            nonlocal item
            instead = self.decoded.newer(item)
            if instead is None:
                return None
            item = instead
            return resized(item.input_bgr, self.size), until()

        input_bgr = resized(item.input_bgr, self.size)
        if self.source.live:
            labels, stats = self.segmenter.measure(input_bgr, until(), newer=newer)
        else:
            labels, stats = self.segmenter.measure(input_bgr, until())
        now = time.perf_counter()
        latency_ms, compute_ms = 1000 * (now - item.ready_at), 1000 * (now - began) - stats.waited_ms
        other_size = item.frame.scaled or self.source.size != self.size
        reconnects = self.source.events.reconnects
        return Result(item.frame, labels, latency_ms, compute_ms, stats, resized=other_size, reconnects=reconnects)

    def encode(self) -> None:
        for result in self.labelled:
            began = time.perf_counter()
            whole = at_source_size(result)
            index, before = result.frame.index, self.last_index
            if index > before + 1:
                whole = replace(whole, dropped_before=index - before - 1)
            self.last_index = index
            for sink in self.sinks:
                sink(whole)
            self.clocks[2].add(began)
            self.bar.update()

    @property
    def waiting(self) -> tuple[int, int]:
        return self.decoded.fullest, self.labelled.fullest

    def end(self) -> None:
        """Decode and compute no further frame. What is labelled already is still written."""
        self.decoded.stop()
        if self.source.live or isinstance(self.source, LiveSource):  # others are their reader's alone
            self.source.close()

    def stop(self) -> None:
        """Write nothing more, either."""
        self.labelled.stop()
        self.end()

    def guarded(self, stage: Callable[[], None], end: Callable[[], None]) -> Callable[[], None]:
        """The stage as a thread's target: its error is kept and ends the other stages."""

        def target() -> None:
            try:
                stage()
            except Stopped:
                pass
            except BaseException as error:
                self.errors.append(error)
                end()

        return target


def at_source_size(result: Result) -> Result:
    """The result with its labels at the size of its frame."""
    height, width = result.frame.frame_bgr.shape[:2]
    if result.labels.shape == (height, width):
        return result
    labels = cv2.resize(result.labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return replace(result, labels=np.asarray(labels, np.uint8))
