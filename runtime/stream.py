"""Stem and trunk with the buffers between them: one frame's split batches drained by several contexts.

Where a worker reads is a slice of the stem's output, in place; where it writes is its own pixels of the label map. So
workers share nothing but the queue.
"""

import threading
import time
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.interface import Buffer, Context, Device, Engine
from splitmerge.errors import EngineError, SplitmergeError
from splitmerge.package import Cut, InputContract, TensorInfo

__all__ = ["FrameStats", "Labels", "Stream", "Whole"]

Labels = NDArray[np.uint8]
_UINT8 = np.dtype(np.uint8)
_LABELS = "labels"  # a graph exported with logits has them beside it, unused here


@dataclass(frozen=True)
class FrameStats:
    """What one frame took. A package without a cut has no stem, and its whole graph counts as one split batch."""

    stem_ms: float
    trunk_ms: float
    split_batches: int


class Whole:
    """The whole graph in one go, for packages without a cut."""

    def __init__(self, engine: Engine, contract: InputContract) -> None:
        self._device, self._context = engine.device, engine.create_context()
        (frames,) = engine.inputs
        self._frame = self._device.empty((1, *contract.size, 3), _UINT8)
        self._labels = self._device.empty((1, *contract.size), _UINT8)
        self._feeds, self._outputs = {frames.name: self._frame}, {_LABELS: self._labels}

    def segment(self, frame_bgr: NDArray[np.uint8]) -> tuple[Labels, FrameStats]:
        """Labels uint8 [H,W] of a frame uint8 [H,W,3]."""
        start = time.perf_counter()
        self._device.write(self._frame, frame_bgr[None])
        self._context.enqueue(self._feeds, self._outputs)
        self._context.synchronize()
        labels = self._device.read(self._labels)[0].copy()
        return labels, FrameStats(0.0, _ms_since(start), 1)


class Stream:
    """The stem once a frame, then its split batches. `schedule` is the chunks of split batches, in order.

    Buffers are made here, once: the frame, the stem's features of all split batches, and labels for one chunk per
    context.
    """

    def __init__(
        self, stem: Engine, trunk: Engine, contract: InputContract, cut: Cut, schedule: list[range], contexts: int
    ) -> None:
        _check_fit(stem, trunk)
        self._cut, self._schedule, self._size = cut, schedule, contract.size
        self._device, self._stem = stem.device, stem.create_context()
        (frames,) = stem.inputs
        self._frame = self._device.empty((1, *contract.size, 3), _UINT8)
        self._feeds = {frames.name: self._frame}
        self._features = {t.name: _empty(self._device, t, cut.batches) for t in stem.outputs}
        longest = max(len(run) for run in schedule)
        small = (longest, contract.padded_height // cut.rows, contract.padded_width // cut.columns)
        self._workers = [
            _Worker(trunk.create_context(), self._device, self._device.empty(small, _UINT8)) for _ in range(contexts)
        ]
        self._padded: Labels = np.empty((contract.padded_height, contract.padded_width), np.uint8)

    def segment(self, frame_bgr: NDArray[np.uint8]) -> tuple[Labels, FrameStats]:
        """Labels uint8 [H,W] of a frame uint8 [H,W,3]."""
        start = time.perf_counter()
        self._device.write(self._frame, frame_bgr[None])
        self._stem.enqueue(self._feeds, self._features)
        self._stem.synchronize()
        middle = time.perf_counter()
        self._drain(deque(self._schedule))
        height, width = self._size
        labels = self._padded[:height, :width].copy()
        return labels, FrameStats((middle - start) * 1e3, _ms_since(middle), self._cut.batches)

    def _drain(self, queue: deque[range]) -> None:
        """Run all chunks. The calling thread is the first worker; the others' threads have ended when this returns."""
        errors: list[Exception] = []
        threads = [
            threading.Thread(target=self._work, args=(worker, queue, errors), name=f"trunk-{i}", daemon=True)
            for i, worker in enumerate(self._workers[1:], 1)
        ]
        try:
            for thread in threads:
                thread.start()
            self._work(self._workers[0], queue, errors)
            _join(threads)
        finally:  # on Ctrl-C the others end after the chunk they are at
            queue.clear()
            _join(threads)
        if errors:
            raise _as_engine_error(errors[0])

    def _work(self, worker: "_Worker", queue: deque[range], errors: list[Exception]) -> None:
        while True:
            try:
                run = queue.popleft()
            except IndexError:
                return
            try:
                self._place(run, worker.labels(self._features, run))
            except Exception as error:
                errors.append(error)
                queue.clear()
                return

    def _place(self, run: range, labels: Labels) -> None:
        rows, columns = self._cut.rows, self._cut.columns
        for index, batch in zip(run, labels, strict=True):
            row, column = divmod(index, columns)
            self._padded[row::rows, column::columns] = batch


@dataclass(frozen=True)
class _Worker:
    """A context of the trunk and the buffer that its labels, uint8 [chunk,h,w], go to."""

    context: Context
    device: Device
    buffer: Buffer

    def labels(self, features: dict[str, Buffer], run: range) -> Labels:
        """Labels uint8 [n,h,w] of the split batches `run`, valid until the next call."""
        feeds = {name: buffer.batches(run.start, run.stop) for name, buffer in features.items()}
        labels = self.buffer.batches(0, len(run))
        self.context.enqueue(feeds, {_LABELS: labels})
        self.context.synchronize()
        return self.device.read(labels)


def _check_fit(stem: Engine, trunk: Engine) -> None:
    given = {t.name: (t.dtype, t.shape[1:]) for t in stem.outputs}
    taken = {t.name: (t.dtype, t.shape[1:]) for t in trunk.inputs}
    if given != taken:
        raise EngineError(f"The stem gives {given} and the trunk takes {taken}: export and build the package again.")


def _empty(device: Device, tensor: TensorInfo, batches: int) -> Buffer:
    fixed = [d for d in tensor.shape[1:] if d is not None]
    if len(fixed) != len(tensor.shape) - 1:
        raise EngineError(f"The stem's {tensor.name} has free dimensions {tensor.shape}: export it for one frame size.")
    return device.empty((batches, *fixed), np.dtype(tensor.dtype))


def _join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        if thread.ident is not None:  # one that never started cannot be waited for
            thread.join()


def _as_engine_error(error: Exception) -> SplitmergeError:
    if isinstance(error, SplitmergeError):
        return error
    wrapped = EngineError(f"A split batch failed: {error or type(error).__name__}.")
    wrapped.__cause__ = error
    return wrapped


def _ms_since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3
