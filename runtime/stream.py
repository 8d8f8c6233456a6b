"""A frame's split batches, drained by the contexts of one device or several from one queue.

Every device computes the stem of its own (its cost is small beside moving features between devices); then each context
takes the next chunk when it is free, so that devices of unequal speed balance. Where a worker writes is its own pixels
of the label map: workers share nothing but the queue.

A device that fails is dropped for good. The chunks that it was at go back to the queue and are done elsewhere, so the
frame is still complete; only when no device is left is the failure the frame's.
"""

import threading
import time
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.interface import Engine
from runtime.lane import LABELS, Labels, Lane, Worker
from runtime.memory import Memories, Memory
from runtime.partial import Mosaic
from splitmerge.errors import EngineError, SplitmergeError
from splitmerge.package import Cut, InputContract

__all__ = ["FrameStats", "Stream", "Whole"]

_UINT8 = np.dtype(np.uint8)


@dataclass(frozen=True)
class FrameStats:
    """What one frame took. A package without a cut has no stem, and its whole graph counts as one split batch.

    `stem_ms` is the slowest device's. `split_batches` were computed for this frame; `held` more are of earlier frames
    of the same scene, and the other pixels took the nearest one. `lost` says of each device that was dropped during
    this frame why. `waited_ms` the frame waited for its turn, while those of other sources were computed.
    """

    stem_ms: float
    trunk_ms: float
    split_batches: int
    held: int = 0
    lost: tuple[str, ...] = ()
    waited_ms: float = 0.0


class Whole:
    """The whole graph in one go, for packages without a cut."""

    def __init__(self, engine: Engine, contract: InputContract) -> None:
        self._device = engine.device
        with self._device.thread():
            self._context = engine.create_context()
            (frames,) = engine.inputs
            self._frame = self._device.empty((1, *contract.size, 3), _UINT8)
            self._labels = self._device.empty((1, *contract.size), _UINT8)
            self._feeds, self._outputs = {frames.name: self._frame}, {LABELS: self._labels}
            self._context.write(self._frame, np.zeros(self._frame.shape, np.uint8))
            self._context.prepare(self._feeds, self._outputs)
            self._context.synchronize()

    def segment(
        self, frame_bgr: NDArray[np.uint8], until: float | None = None, source: Memories | None = None
    ) -> tuple[Labels, FrameStats]:
        """Labels uint8 [H,W] of a frame uint8 [H,W,3]. There are no split batches that `until` could leave out, so that
        nothing is to be remembered.
        """
        start = time.perf_counter()
        with self._device.thread():
            self._context.write(self._frame, frame_bgr[None])
            self._context.enqueue(self._feeds, self._outputs)
            labels = self._context.read(self._labels)
            self._context.synchronize()
        return labels[0].copy(), FrameStats(0.0, _ms_since(start), 1)

    def close(self) -> None:
        """Give back the context. Engine and device are their owner's."""
        self._context.close()


class Stream:
    """Lanes that work on the same frame. `schedule` is the chunks of split batches, in order; `density` how many of
    them a frame gets (all where None).
    """

    def __init__(
        self, lanes: list[Lane], contract: InputContract, cut: Cut, schedule: list[range], density: int | None = None
    ) -> None:
        self._lanes, self._cut, self._size = lanes, cut, contract.size
        self._schedule = schedule[:density]
        self._padded = contract.padded_height, contract.padded_width

    def segment(self, frame_bgr: NDArray[np.uint8], until: float | None, source: Memories) -> tuple[Labels, FrameStats]:
        """Labels uint8 [H,W] of a frame uint8 [H,W,3] of a source.

        No split batch is begun that would not be done by `until` (a time of `time.perf_counter`), but for the first.
        The source's next frame then goes on with those that were left out.
        """
        with source.one(lambda: Memory(self._cut, self._padded, self._schedule)) as memory:
            return self._segment(frame_bgr, until, memory)

    def _segment(self, frame_bgr: NDArray[np.uint8], until: float | None, memory: Memory) -> tuple[Labels, FrameStats]:
        start = time.perf_counter()
        held = memory.held(frame_bgr) if until is not None else memory.nothing()
        job = _Job(frame_bgr, _Queue(memory.schedule, until), memory.mosaic)
        for lane in self._lanes:
            lane.begin()
        try:
            self._run(job)
        finally:
            lost = self._drop(job.failed)
        if not job.queue.done:
            raise as_engine_error(next(iter(job.failed.values())))
        memory.go_on_with(job.queue.left)
        labels = memory.mosaic.picture(self._size)
        stem_ms = max((lane.stem_ms for lane in job.stems), default=0.0)
        held -= job.placed
        return labels, FrameStats(stem_ms, _ms_since(start) - stem_ms, len(job.placed), len(held), lost)

    def _run(self, job: "_Job") -> None:
        """Run all chunks. The calling thread is the first worker; the others' threads have ended when this returns."""
        first, *others = [(lane, worker) for lane in self._lanes for worker in lane.workers]
        threads = [
            threading.Thread(target=self._work, args=(job, *pair), name=f"trunk-{i}", daemon=True)
            for i, pair in enumerate(others, 1)
        ]
        try:
            _start(threads)
            self._work(job, *first)
            _join(threads)
        finally:  # on Ctrl-C the others end after the chunk they are at
            job.queue.stop()
            for lane in self._lanes:
                lane.abandon()
            _join(threads)
        if job.errors:
            raise as_engine_error(job.errors[0])

    def _work(self, job: "_Job", lane: Lane, worker: Worker) -> None:
        try:
            with lane.device.thread():
                if worker is lane.workers[0]:
                    started = time.perf_counter()
                    lane.run_stem(job.frame)
                    lane.stem_ms = _ms_since(started)
                    job.stems.append(lane)
                elif not lane.wait_for_stem():
                    return
                self._drain(job, lane, worker)
        except Exception as error:
            job.fail(lane, error)
            lane.abandon()  # where it failed before its stem, the lane's others would wait for ever

    def _drain(self, job: "_Job", lane: Lane, worker: Worker) -> None:
        while lane not in job.failed:
            run = job.queue.take(lane.chunk_s)
            if run is None:
                return
            began = time.perf_counter()
            try:
                labels = worker.labels(run)
            except BaseException:
                job.queue.give_back(run)
                raise
            try:
                self._place(job.mosaic, run, labels)
                job.placed.update(run)
            except Exception as error:  # the label map is common to all: no other device could do better
                job.errors.append(error)
                job.queue.stop()
                return
            job.queue.finish()
            lane.took(time.perf_counter() - began)

    def _place(self, mosaic: Mosaic, run: range, labels: Labels) -> None:
        for index, batch in zip(run, labels, strict=True):
            mosaic.place(index, batch)

    def _drop(self, failed: "dict[Lane, Exception]") -> tuple[str, ...]:
        lost = []
        for lane, error in failed.items():
            if len(self._lanes) == 1:
                break  # a single device is kept: its failure is the frame's, and the next frame may do
            self._lanes.remove(lane)
            lane.close()
            lost.append(f"{lane.device.name} failed and was dropped: {error}")
        return tuple(lost)


class _Queue:
    """Chunks to be done, `until` a time. Empty is not done: what another device is at may come back."""

    def __init__(self, schedule: list[range], until: float | None) -> None:
        self._left, self._until = deque(schedule), until
        self._at_work = self._finished = 0
        self._stopped = self._cut_short = False
        self._changed = threading.Condition()

    @property
    def left(self) -> list[range]:
        """Chunks that nobody did."""
        return list(self._left)

    @property
    def done(self) -> bool:
        """Whether all was done that there was time for."""
        return not self._at_work and (not self._left or self._cut_short)

    def take(self, seconds: float) -> range | None:
        """The next chunk, waiting while others' may come back; None where all are done or there is no time for one that
        takes `seconds`. One is always done, however late it is.
        """
        with self._changed:
            while not self._stopped:
                late = self._until is not None and time.perf_counter() + seconds > self._until
                if self._left and (not late or not (self._finished or self._at_work)):
                    self._at_work += 1
                    return self._left.popleft()
                if self._left and self._finished:
                    self._cut_short = True
                    return None
                if not self._at_work:
                    return None
                self._changed.wait()
            return None

    def finish(self) -> None:
        with self._changed:
            self._at_work -= 1
            self._finished += 1
            self._changed.notify_all()

    def give_back(self, run: range) -> None:
        with self._changed:
            self._at_work -= 1
            self._left.appendleft(run)
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


class _Job:
    """One frame on its way. Its lists are filled by the workers."""

    def __init__(self, frame: NDArray[np.uint8], queue: _Queue, mosaic: Mosaic) -> None:
        self.frame, self.queue, self.mosaic = frame, queue, mosaic
        self.stems: list[Lane] = []
        self.placed: set[int] = set()
        self.failed: dict[Lane, Exception] = {}
        self.errors: list[Exception] = []

    def fail(self, lane: Lane, error: Exception) -> None:
        """The lane's device failed. Its other workers end after the chunk they are at."""
        self.failed.setdefault(lane, error)


def as_engine_error(error: Exception) -> SplitmergeError:
    """The error itself, or an EngineError with its words."""
    if isinstance(error, SplitmergeError):
        return error
    wrapped = EngineError(f"A split batch failed: {error or type(error).__name__}.")
    wrapped.__cause__ = error
    return wrapped


def _start(threads: list[threading.Thread]) -> None:
    try:
        for thread in threads:
            thread.start()
    except RuntimeError as error:  # what Python raises where the system has no memory for another one
        raise EngineError(f"The system has no room for another context ({error}): use fewer --contexts.") from error


def _join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        if thread.ident is not None:  # one that never started cannot be waited for
            thread.join()


def _ms_since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3
