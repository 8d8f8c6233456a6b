"""Frames in, results out: decoding, computing and writing at the same time, in order, one result for each frame.

    decode thread ──decoded──> this thread (compute) ──labelled──> encode thread (sinks)

The channels between them are bounded, so the slowest stage sets the pace and memory stays at a few frames. A failure in
any stage ends all three and is raised once, here; so are Ctrl-C and SIGTERM, or the summary tells of them. What was
labelled is still written. A frame's pixels are copied only where the engine needs another size than the source has.

Nothing waits for a live source's frames, and they wait for nobody: of those that were decoded while the engine was busy
only the newest is computed, and of those that wait for the sinks the oldest makes room. Each frame that is left out is
counted where that happens: captured = written + skipped + what the sinks had no time for.
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from runtime.ages import Ages
from runtime.channel import Channel, Stopped
from runtime.frames import resized as _resized
from runtime.memory import Newer
from runtime.ordered import in_order
from runtime.relay import relay
from runtime.sinks import Result, Sink
from runtime.sources import Source, SourceFrame
from runtime.summary import Clock, Freshness, Summary
from splitmerge.interrupts import Terminated

if TYPE_CHECKING:
    from runtime.executor import FrameStats

__all__ = ["Ending", "MeasuredSegmenter", "Segmenter", "run_pipeline"]

DEPTH = 4
"""Frames that may wait between two stages: enough to even out their times, little enough for 4K frames."""


class Segmenter(Protocol):
    """What computes labels: frame uint8 [H,W,3] BGR to class ids uint8 [H,W]."""

    def segment(self, frame_bgr: NDArray[np.uint8]) -> NDArray[np.uint8]: ...


class MeasuredSegmenter(Segmenter, Protocol):
    """A segmenter that says what was computed and how long it took, and may be called by `parallel` threads at once:
    runtime.executor.Executor, runtime.shards.FrameShards, and a source's runtime.share.Share of one of them.
    """

    parallel: int

    def measure(
        self, frame_bgr: NDArray[np.uint8], until: float | None = None, *, newer: Newer | None = None
    ) -> tuple[NDArray[np.uint8], "FrameStats"]:
        """`newer` is of a live source: where others' frames are computed first, it is asked when this one's turn has
        come, for what has been captured since.
        """
        ...


class Ending:
    """Ends a run from another thread, as Ctrl-C ends it in the main one: `because` names the signal."""

    def __init__(self) -> None:
        self.because: str | None = None
        self._end: Callable[[], None] | None = None
        self._lock = threading.Lock()

    def end(self, because: str) -> None:
        """Decode and compute no further frame; those that are labelled are written."""
        with self._lock:
            self.because = self.because or because
            if self._end is not None:
                self._end()

    def listen(self, end: Callable[[], None]) -> None:
        """Have `end` called when the time comes, at once where it has."""
        with self._lock:
            self._end = end
            if self.because:
                end()


@dataclass(frozen=True)
class _Decoded:
    """`ready_at` is the `time.perf_counter` of a live frame's capture, and otherwise of its being ready to compute."""

    frame: SourceFrame
    input_bgr: NDArray[np.uint8]
    ready_at: float


@dataclass
class _Run:
    """The state that the three stages share."""

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
            input_bgr = _resized(frame.frame_bgr, self.size)
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
            return _resized(item.input_bgr, self.size), until()

        input_bgr = _resized(item.input_bgr, self.size)
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
            whole = _at_source_size(result)
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
        if self.source.live:
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


def run_pipeline(
    source: Source,
    segmenter: MeasuredSegmenter,
    sinks: Sequence[Sink],
    size: tuple[int, int],
    limit: int | None = None,
    progress: bool = False,
    deadline_ms: float = 0,
    start: int = 0,
    ending: Ending | None = None,
) -> Summary:
    """Segment every frame of `source` (the first `limit`) at the engine's `size` (height, width) and feed the sinks.

    A live source's frames are segmented as far as there is time (`limit` of them). A frame's split batches stop after
    `deadline_ms` of computing, of a live source `deadline_ms` after its capture; 0: never.

    `start` frames were done by an earlier run, and the source begins after them; they count for `limit`. With an
    `ending`, a run that it ends early, or Ctrl-C or SIGTERM, gives its summary, which says so. (Of the signals a run
    in another thread than the main one hears by its `ending` alone.)

    Raises what the first failing stage raised. The sinks' own clean-up is their context managers'.
    """
    expected = min((n for n in (source.frame_count, limit) if n is not None), default=None)
    # tqdm prints nothing where stderr is no terminal (disable=None).
    with tqdm(total=expected, initial=start, unit="frame", disable=None if progress else True) as bar:
        run = _Run(source, segmenter, sinks, size, bar, deadline_ms, last_index=start - 1)
        if source.live:
            run.decoded = Channel(1)
        if ending is not None:
            ending.listen(run.end)
        began = time.perf_counter()
        try:
            _run_stages(run, None if limit is None else max(0, limit - start))
        except (KeyboardInterrupt, Terminated) as signal:
            if ending is None:
                raise
            ending.because = "SIGTERM" if isinstance(signal, Terminated) else "SIGINT"
        if run.errors:
            raise run.errors[0]
        seconds = time.perf_counter() - began
        left = run.decoded.replaced + len(run.decoded) + run.given_up if source.live else 0
        freshness = Freshness(run.skipped + left, run.unwritten, run.ages.facts)
        summary = Summary.of(source, size, run.clocks, run.waiting, seconds, segmenter.parallel, run.lost, freshness)
        return replace(summary, frames_before=start, interrupted=ending.because if ending else None)


def _run_stages(run: _Run, limit: int | None) -> None:
    live = run.source.live
    decode = run.decode_live if live else lambda: run.decode(limit)
    threads = [
        threading.Thread(target=run.guarded(decode, run.end), name="decode"),
        threading.Thread(target=run.guarded(run.encode, run.stop), name="encode"),
    ]
    try:
        for thread in threads:
            thread.start()
        if live:
            run.compute_live(limit)
        else:
            run.compute()
        for thread in threads:
            thread.join()
    except Stopped:
        pass  # the run was ended, or another stage failed; its error is raised below
    finally:
        run.end()
        run.labelled.close()
        for thread in threads:
            if thread.ident is not None:
                thread.join()


def _at_source_size(result: Result) -> Result:
    height, width = result.frame.frame_bgr.shape[:2]
    if result.labels.shape == (height, width):
        return result
    labels: NDArray[np.uint8] = cv2.resize(  # type: ignore[assignment]
        result.labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT
    )
    return replace(result, labels=labels)
