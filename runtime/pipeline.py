"""Frames in, results out: decoding, computing and writing at the same time, in order, one result for each frame.

    decode thread ──decoded──> this thread (compute) ──labelled──> encode thread (sinks)

The channels between them are bounded, so the slowest stage sets the pace and memory stays at a few frames. A failure in
any stage ends all three and is raised once, here; so are Ctrl-C and SIGTERM, or the summary tells of them. What was
labelled is still written. A frame's pixels are copied only where the engine needs another size than the source has.

Nothing waits for a live source's frames, and they wait for nobody: of those that were decoded while the engine was busy
only the newest is computed, and of those that wait for the sinks the oldest makes room. Each frame that is left out is
counted where that happens: captured = written + skipped + what the sinks had no time for.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from tqdm import tqdm

from runtime.channel import Channel, Stopped
from runtime.segmenter import MeasuredSegmenter, Segmenter
from runtime.sinks import Sink
from runtime.sources import Source
from runtime.stages import DEPTH, Stages
from runtime.summary import Freshness, Summary
from splitmerge.interrupts import Terminated

__all__ = ["DEPTH", "Ending", "MeasuredSegmenter", "Segmenter", "run_pipeline"]


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
        run = Stages(source, segmenter, sinks, size, bar, deadline_ms, last_index=start - 1)
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


def _run_stages(run: Stages, limit: int | None) -> None:
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
