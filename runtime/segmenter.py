"""What computes labels, as a pipeline sees it."""

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.memory import Newer

if TYPE_CHECKING:
    from runtime.executor import FrameStats

__all__ = ["MeasuredSegmenter", "Segmenter"]


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
