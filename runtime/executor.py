"""Segment one frame: the stem once, then its split batches streamed through several contexts of the trunk.

    with Executor(Package.open(folder), contexts=2) as executor:
        labels = executor.segment(frame_bgr)

Split batches never meet before the merge, so every context writes its own pixels of the label map and the result is
the same, bit for bit, for any number of contexts, any chunk and any order. Only one chunk per context is in memory at a
time.

Two contexts are the default: with SMP-18 of width 16 at 512x1024 on two idle cores they took 3.1 s and 164 MiB a frame,
one context (of two threads) 4.4 s and 114 MiB; at 1024x2048, 14.2 s and 653 MiB against 15.2 s and 455 MiB. Chunks of 4
took 349 MiB and were no faster on busy cores. `splitmerge bench` measures other machines.
"""

import threading
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from engines.load import load_engine
from runtime.schedule import DEFAULT_CONTEXTS, chunks, split_batch_order
from runtime.stream import FrameStats, Labels, Stream, Whole
from splitmerge.errors import EngineError, InputError
from splitmerge.package import InputContract, Package

__all__ = ["Executor", "FrameStats"]


class Executor:
    """Runs a package's engines on frames. One frame at a time: calls from several threads wait for each other."""

    def __init__(
        self,
        package: Package,
        contexts: int = DEFAULT_CONTEXTS,
        chunk: int = 1,
        backend: str = "onnxruntime",
        precision: str = "fp32",
        order: str = "bayer",
        threads: int | None = None,
    ) -> None:
        """`threads` is CPU threads per context, by default the cores shared out among the contexts.

        Raises EngineError where an engine is missing or is not for this machine, InputError for options that cannot be.
        """
        if contexts < 1:
            raise InputError(f"{contexts} contexts cannot run anything: choose 1 or more.")
        self.package = package
        self.stats = FrameStats(0.0, 0.0, 0)
        self._lock = threading.Lock()
        self._run: Whole | Stream | None
        cut, contract = package.manifest.cut, package.manifest.input
        if cut is None:
            self._run = Whole(load_engine(package, "model", backend, precision, threads), contract)
        else:
            schedule = chunks(split_batch_order(order, cut.rows, cut.columns), chunk)
            contexts = min(contexts, len(schedule))
            stem = load_engine(package, "stem", backend, precision, threads and threads * contexts)
            trunk = load_engine(package, "trunk", backend, precision, threads, contexts)
            self._run = Stream(stem, trunk, contract, cut, schedule, contexts)

    def __enter__(self) -> "Executor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back engines and buffers. The executor cannot be used after that."""
        with self._lock:
            self._run = None

    def segment(self, frame_bgr: NDArray[np.uint8]) -> Labels:
        """Labels uint8 [H,W] of a frame uint8 [H,W,3], blue-green-red. The caller owns the array.

        `stats` is this frame's afterwards. Raises InputError for a frame that is not what the package takes,
        EngineError where an engine fails.
        """
        _check_frame(frame_bgr, self.package.manifest.input)
        with self._lock:
            if self._run is None:
                raise EngineError("This executor has been closed: make a new one.")
            labels, self.stats = self._run.segment(frame_bgr)
        return labels


def _check_frame(frame: NDArray[np.uint8], contract: InputContract) -> None:
    expected = (*contract.size, 3)
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.shape != expected:
        given = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise InputError(
            f"A frame is {given} and this package takes uint8 {expected}, blue-green-red: resize the frame, or export "
            "the network again for its size."
        )
