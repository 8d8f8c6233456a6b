"""Label maps of which only some split batches were computed: the other pixels take the nearest computed one.

Split batches are computed at different times where a deadline cuts frames short. While the scene stands still, those of
earlier frames stay good, so that after some frames every pixel is its own again.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from splitmerge.package import Cut

__all__ = ["Mosaic", "Scene", "nearest"]

Labels = NDArray[np.uint8]
Pixel = tuple[int, int]

_STEP = 8  # every eighth row and column tells whether a frame has changed
_NOISE = 2.0
"""Mean difference of two frames, in levels of 255, up to which they are the same scene: a sensor's noise by day."""


class Scene:
    """Tells whether a frame shows what the one before it did."""

    def __init__(self) -> None:
        self._before: NDArray[np.int16] | None = None

    def changed(self, frame_bgr: NDArray[np.uint8]) -> bool:
        """Whether this frame, uint8 [H,W,3], differs from the last one that was asked about."""
        now = frame_bgr[::_STEP, ::_STEP].astype(np.int16)
        before, self._before = self._before, now
        return before is None or float(np.abs(now - before).mean()) > _NOISE


class Mosaic:
    """A padded label map uint8 [H,W], filled one split batch at a time.

    `batches` are the indices `k * columns + l` of those whose pixels are the scene's own.
    """

    def __init__(self, cut: Cut, shape: tuple[int, int]) -> None:
        self._rows, self._columns = cut.rows, cut.columns
        self._labels: Labels = np.zeros(shape, np.uint8)
        self.batches: set[int] = set()

    def place(self, index: int, labels: Labels) -> None:
        """Put one split batch's labels uint8 [h,w] where they belong."""
        row, column = divmod(index, self._columns)
        self._labels[row :: self._rows, column :: self._columns] = labels
        self.batches.add(index)

    def picture(self, size: tuple[int, int]) -> Labels:
        """A copy of the first (height, width) pixels, the missing ones filled. At least one batch must be there."""
        window = self._rows, self._columns
        if len(self.batches) < self._rows * self._columns:
            sources = nearest((divmod(index, self._columns) for index in self.batches), window)
            for (row, column), source in sources.items():
                self._labels[row :: self._rows, column :: self._columns] = self._plane(source)
        return self._labels[: size[0], : size[1]].copy()

    def _plane(self, source: Pixel) -> Labels:
        """The labels at a pixel (k,l) of every window; beyond 0..rows-1 that of a neighbouring window."""
        (down, row), (right, column) = divmod(source[0], self._rows), divmod(source[1], self._columns)
        plane = self._labels[row :: self._rows, column :: self._columns]
        return plane[np.ix_(_clamped(plane.shape[0], down), _clamped(plane.shape[1], right))]


def nearest(done: Iterable[Pixel], window: tuple[int, int]) -> dict[Pixel, Pixel]:
    """For each pixel of a window that is not among `done`: the nearest that is, here or in a neighbouring window.

    A neighbouring window's pixels have coordinates below 0 or from the window's height and width on. Of equally near
    ones this window's own is taken.
    """
    rows, columns = window
    own = sorted(done)
    around = [(k + i * rows, m + j * columns) for i in (0, -1, 1) for j in (0, -1, 1) for k, m in own]
    missing = [(k, m) for k in range(rows) for m in range(columns) if (k, m) not in set(own)]
    return {(k, m): min(around, key=lambda p: (p[0] - k) ** 2 + (p[1] - m) ** 2) for k, m in missing}


def _clamped(length: int, shift: int) -> NDArray[np.int64]:
    return np.clip(np.arange(length) + shift, 0, length - 1)
