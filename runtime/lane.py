"""One device at work on frames: the stem, its features, and the contexts of the trunk that read them in place."""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.interface import Buffer, Context, Device, Engine
from splitmerge.errors import EngineError, InputError
from splitmerge.package import Cut, InputContract, TensorInfo

__all__ = ["LABELS", "Labels", "Lane", "Worker"]

Labels = NDArray[np.uint8]
LABELS = "labels"  # a graph exported with logits has them beside it, unused here
_UINT8 = np.dtype(np.uint8)

_SMOOTHING = 0.2
"""Share of the newest chunk in the time that the next one is expected to take."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Worker:
    """A context of the trunk and the buffer that its labels, uint8 [chunk,h,w], go to."""

    context: Context
    buffer: Buffer
    features: Mapping[str, Buffer]

    def labels(self, run: range) -> Labels:
        """Labels uint8 [n,h,w] of the split batches `run`, valid until the next call."""
        feeds, outputs = self._bound(run)
        self.context.enqueue(feeds, outputs)
        labels: Labels = self.context.read(outputs[LABELS])
        self.context.synchronize()
        return labels

    def prepare(self, run: range) -> None:
        """Run them once, so that nothing has to be made when they are run again."""
        feeds, outputs = self._bound(run)
        self.context.prepare(feeds, outputs)
        self.context.read(outputs[LABELS])
        self.context.synchronize()

    def _bound(self, run: range) -> tuple[dict[str, Buffer], dict[str, Buffer]]:
        feeds = {name: buffer.batches(run.start, run.stop) for name, buffer in self.features.items()}
        return feeds, {LABELS: self.buffer.batches(0, len(run))}


class Lane:
    """Stem and trunk on one device with `contexts` contexts. Buffers are made here, once, and nothing is copied
    between stem and trunk: a worker is handed the address of its split batches in the stem's output.

    `stem_ms` is how long the last frame's stem took, `chunk_s` about how many seconds a chunk takes. Raises EngineError
    where stem and trunk do not fit each other, or the contexts do not fit the device's memory.
    """

    def __init__(
        self, stem: Engine, trunk: Engine, contract: InputContract, cut: Cut, schedule: list[range], contexts: int
    ) -> None:
        _check_fit(stem, trunk)
        _check_chunks(trunk, schedule)
        self.device: Device = stem.device
        self.stem_ms = self.chunk_s = 0.0
        self.workers: list[Worker] = []
        self._contexts: list[Context] = []
        self._stem_done, self._stem_failed = threading.Event(), False
        longest = max(len(run) for run in schedule)
        small = (longest, contract.padded_height // cut.rows, contract.padded_width // cut.columns)
        try:
            with self.device.thread():
                (frames,) = stem.inputs
                self._frame = self.device.empty((1, *contract.size, 3), _UINT8)
                self._feeds = {frames.name: self._frame}
                self._features = {t.name: _empty(self.device, t, cut.batches) for t in stem.outputs}
                self._stem = self._context_of(stem)
                for _ in range(contexts):
                    labels = self.device.empty(small, _UINT8)
                    self.workers.append(Worker(self._context_of(trunk), labels, self._features))
        except BaseException:
            self.close()
            raise

    def prepare(self, schedule: list[range]) -> None:
        """Run everything once, so that the first frame is as fast as the others. Longest chunks first: a context's
        memory grows with them."""
        with self.device.thread():
            height, width = self._frame.shape[1:3]
            self._stem.write(self._frame, np.zeros((1, height, width, 3), np.uint8))
            self._stem.prepare(self._feeds, self._features)
            self._stem.synchronize()
            for worker in self.workers:
                for run in sorted(schedule, key=len, reverse=True):
                    worker.prepare(run)

    def begin(self) -> None:
        """A new frame: workers wait for its stem."""
        self._stem_failed = False
        self._stem_done.clear()

    def run_stem(self, frame_bgr: NDArray[np.uint8]) -> None:
        """Compute the features of a frame uint8 [H,W,3] and let the workers go on."""
        try:
            self._stem.write(self._frame, frame_bgr[None])
            self._stem.enqueue(self._feeds, self._features)
            self._stem.synchronize()
        except BaseException:
            self._stem_failed = True
            raise
        finally:
            self._stem_done.set()

    def took(self, seconds: float) -> None:
        """A chunk took so long."""
        self.chunk_s += (seconds - self.chunk_s) * (_SMOOTHING if self.chunk_s else 1.0)

    def wait_for_stem(self) -> bool:
        """Whether the features are there."""
        self._stem_done.wait()
        return not self._stem_failed

    def abandon(self) -> None:
        """Nobody will run the stem any more: workers that wait for it give up."""
        if not self._stem_done.is_set():
            self._stem_failed = True
            self._stem_done.set()

    def close(self) -> None:
        """Give back the contexts; what a lost device refuses is logged. Engines and device are their owner's."""
        self.workers.clear()
        while self._contexts:
            try:
                self._contexts.pop().close()
            except EngineError as error:
                log.info("%s", error)

    def _context_of(self, engine: Engine) -> Context:
        context = engine.create_context()
        self._contexts.append(context)
        return context


def _check_fit(stem: Engine, trunk: Engine) -> None:
    given = {t.name: (t.dtype, t.shape[1:]) for t in stem.outputs}
    taken = {t.name: (t.dtype, t.shape[1:]) for t in trunk.inputs}
    if given != taken:
        raise EngineError(f"The stem gives {given} and the trunk takes {taken}: export and build the package again.")


def _check_chunks(trunk: Engine, schedule: list[range]) -> None:
    lengths = {len(run) for run in schedule}
    if trunk.batches is None or (trunk.batches[0] <= min(lengths) and max(lengths) <= trunk.batches[1]):
        return
    fewest, most = trunk.batches
    raise InputError(
        f"Chunks of {' and '.join(map(str, sorted(lengths)))} split batches do not fit the trunk's plan, which takes "
        f"{fewest} to {most} at once: choose another --chunk, or build with --min-batches {min(lengths)} --max-batches "
        f"{max(lengths)}."
    )


def _empty(device: Device, tensor: TensorInfo, batches: int) -> Buffer:
    fixed = [d for d in tensor.shape[1:] if d is not None]
    if len(fixed) != len(tensor.shape) - 1:
        raise EngineError(f"The stem's {tensor.name} has free dimensions {tensor.shape}: export it for one frame size.")
    return device.empty((batches, *fixed), np.dtype(tensor.dtype))
