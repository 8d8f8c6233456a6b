"""An engine as one of several sources sees it.

with Executor(package) as executor:
    shares = [Share(executor) for _ in sources]     # each goes into a pipeline of its own
"""

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.memory import Memories, Newer

if TYPE_CHECKING:
    from runtime.stream import FrameStats

__all__ = ["Share", "Shared"]


class Shared(Protocol):
    """What can be shared: runtime.executor.Executor and runtime.shards.FrameShards."""

    parallel: int

    def measure(
        self,
        frame_bgr: NDArray[np.uint8],
        until: float | None = None,
        source: Memories | None = None,
        newer: Newer | None = None,
    ) -> tuple[NDArray[np.uint8], "FrameStats"]: ...


class Share:
    """A segmenter for one source: its frames take fair turns with other sources' (`runtime.turns`), and what a deadline
    left of earlier frames is its own. Of a `live` source, a deadline goes on while a frame waits for its turn.
    """

    def __init__(self, segmenter: Shared, live: bool = False) -> None:
        self.parallel = segmenter.parallel
        self._segmenter, self._source = segmenter, Memories(waiting_counts=live)

    def segment(self, frame_bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Labels uint8 [H,W] of a frame uint8 [H,W,3], blue-green-red."""
        return self.measure(frame_bgr)[0]

    def measure(
        self, frame_bgr: NDArray[np.uint8], until: float | None = None, *, newer: Newer | None = None
    ) -> tuple[NDArray[np.uint8], "FrameStats"]:
        """`Executor.measure` of this source's next frame."""
        return self._segmenter.measure(frame_bgr, until, self._source, newer)
