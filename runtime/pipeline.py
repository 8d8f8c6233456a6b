"""Frames in, results out: decoding, computing and writing at the same time, in order, one result for each frame.

    decode thread ──decoded──> this thread (compute) ──labelled──> encode thread (sinks)

The channels between them are bounded, so the slowest stage sets the pace and memory stays at a few frames. A failure in
any stage stops all three and is raised once, here; so does Ctrl-C. A frame's pixels are copied only where the engine
needs another size than the source has.
"""

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from runtime.channel import Channel, Stopped
from runtime.ordered import in_order
from runtime.sinks import Result, Sink
from runtime.sources import Source, SourceFrame
from runtime.summary import Clock, Summary

if TYPE_CHECKING:
    from runtime.executor import FrameStats

__all__ = ["MeasuredSegmenter", "Segmenter", "run_pipeline"]

DEPTH = 4
"""Frames that may wait between two stages: enough to even out their times, little enough for 4K frames."""


class Segmenter(Protocol):
    """What computes labels: frame uint8 [H,W,3] BGR to class ids uint8 [H,W]."""

    def segment(self, frame_bgr: NDArray[np.uint8]) -> NDArray[np.uint8]: ...


class MeasuredSegmenter(Segmenter, Protocol):
    """A segmenter that says what was computed and how long it took, and may be called by `parallel` threads at once:
    runtime.executor.Executor and runtime.shards.FrameShards.
    """

    parallel: int

    def measure(
        self, frame_bgr: NDArray[np.uint8], until: float | None = None
    ) -> tuple[NDArray[np.uint8], "FrameStats"]: ...


@dataclass(frozen=True)
class _Decoded:
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

    def decode(self, limit: int | None) -> None:
        frames = itertools.islice(self.source, limit)
        began = time.perf_counter()
        for frame in frames:
            input_bgr = _resized(frame.frame_bgr, self.size)
            self.clocks[0].add(began)
            self.decoded.put(_Decoded(frame, input_bgr, time.perf_counter()))
            began = time.perf_counter()
        self.decoded.close()

    def compute(self) -> None:
        for result in in_order(self.label, self.decoded, self.segmenter.parallel):
            self.clocks[1].add_ms(result.compute_ms)
            self.lost.extend(result.stats.lost)
            self.labelled.put(result)
        self.labelled.close()

    def label(self, item: _Decoded) -> Result:
        began = time.perf_counter()
        until = began + self.deadline_ms / 1e3 if self.deadline_ms else None
        labels, stats = self.segmenter.measure(item.input_bgr, until)
        now = time.perf_counter()
        latency_ms, compute_ms = 1000 * (now - item.ready_at), 1000 * (now - began)
        return Result(item.frame, labels, latency_ms, compute_ms, stats, resized=self.source.size != self.size)

    def encode(self) -> None:
        for result in self.labelled:
            began = time.perf_counter()
            whole = _at_source_size(result)
            for sink in self.sinks:
                sink(whole)
            self.clocks[2].add(began)
            self.bar.update()

    @property
    def waiting(self) -> tuple[int, int]:
        return self.decoded.fullest, self.labelled.fullest

    def stop(self) -> None:
        self.decoded.stop()
        self.labelled.stop()

    def guarded(self, stage: Callable[[], None]) -> Callable[[], None]:
        """The stage as a thread's target: its error is kept and ends the other stages."""

        def target() -> None:
            try:
                stage()
            except Stopped:
                pass
            except BaseException as error:
                self.errors.append(error)
                self.stop()

        return target


def run_pipeline(
    source: Source,
    segmenter: MeasuredSegmenter,
    sinks: Sequence[Sink],
    size: tuple[int, int],
    limit: int | None = None,
    progress: bool = False,
    deadline_ms: float = 0,
) -> Summary:
    """Segment every frame of `source` (the first `limit`) at the engine's `size` (height, width) and feed the sinks.

    A frame's split batches stop after `deadline_ms` of computing, 0: never.

    Raises what the first failing stage raised. The sinks' own clean-up is their context managers'.
    """
    expected = min((n for n in (source.frame_count, limit) if n is not None), default=None)
    # tqdm prints nothing where stderr is no terminal (disable=None).
    with tqdm(total=expected, unit="frame", disable=None if progress else True) as bar:
        run = _Run(source, segmenter, sinks, size, bar, deadline_ms)
        began = time.perf_counter()
        _run_stages(run, limit)
        seconds = time.perf_counter() - began
        return Summary.of(source, size, run.clocks, run.waiting, seconds, segmenter.parallel, run.lost)


def _run_stages(run: _Run, limit: int | None) -> None:
    threads = [
        threading.Thread(target=run.guarded(lambda: run.decode(limit)), name="decode"),
        threading.Thread(target=run.guarded(run.encode), name="encode"),
    ]
    try:
        for thread in threads:
            thread.start()
        run.compute()
        for thread in threads:
            thread.join()
    except Stopped:
        pass  # another stage failed; its error is raised below
    finally:
        run.stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if run.errors:
        raise run.errors[0]


def _resized(frame_bgr: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The frame at the engine's size: averaged where it shrinks, linear where it grows, untouched where it fits.

    Height and width are scaled each on its own, so that a frame of another aspect is stretched rather than cropped.
    """
    height, width = frame_bgr.shape[:2]
    if (height, width) == size:
        return frame_bgr
    shrinks = size[0] * size[1] < height * width
    out: NDArray[np.uint8] = cv2.resize(  # type: ignore[assignment]
        frame_bgr, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return out


def _at_source_size(result: Result) -> Result:
    height, width = result.frame.frame_bgr.shape[:2]
    if result.labels.shape == (height, width):
        return result
    labels: NDArray[np.uint8] = cv2.resize(  # type: ignore[assignment]
        result.labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT
    )
    return replace(result, labels=labels)
