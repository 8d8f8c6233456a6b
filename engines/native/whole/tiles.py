"""Tiles of a convolution by minimal filtering, with taps any number of pixels apart."""

import numpy as np
from numpy.typing import NDArray

from engines.native.kernels import Tile
from engines.native.trunk import Pair

__all__ = ["OUTSIDE", "tables"]

Pixels = NDArray[np.int32]

OUTSIDE = -1
"""The pixel before the first, which is zero."""


def tables(size: Pair, rate: Pair, tile: Tile) -> tuple[Pixels, Pixels]:
    """Which pixels of a map of this size each tile reads [tiles,points] and writes [tiles,outputs], int32.

    A tile's pixels are `rate` apart. What it writes beyond the map goes to the pixel behind the last.
    """
    height, width = size
    (tops, down), (lefts, across) = (
        _firsts(length, apart, side) for length, apart, side in zip(size, rate, tile, strict=True)
    )

    def pixels(margin: int, outside: int) -> Pixels:
        y = tops[:, None] + down * np.arange(-margin, tile[0] + margin)
        x = lefts[:, None] + across * np.arange(-margin, tile[1] + margin)
        rows, columns = y[:, None, :, None], x[None, :, None, :]
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        table = np.where(inside, rows * width + columns, outside)
        return np.ascontiguousarray(table.reshape(len(y) * len(x), -1), np.int32)

    return pixels(1, OUTSIDE), pixels(0, height * width)


def _firsts(length: int, rate: int, side: int) -> tuple[NDArray[np.int64], int]:
    """The first pixel of each tile along a side, and how far apart its pixels are."""
    firsts = [
        first + rate * side * number
        for first in range(min(rate, length))
        for number in range(-(-len(range(first, length, rate)) // side))
    ]
    return np.array(firsts, np.int64), rate
