"""Tiles of a convolution by minimal filtering, with taps any number of pixels apart."""

import numpy as np
from numpy.typing import NDArray

from engines.native.kernels import Tile
from engines.native.trunk import Pair

__all__ = ["tables"]

Pixels = NDArray[np.int32]


def tables(size: Pair, rate: Pair, tile: Tile, outside: int, beyond: int) -> tuple[Pixels, Pixels]:
    """Which pixels of a map of this size each tile reads [tiles,points] and writes [tiles,outputs], int32.

    A tile's pixels are `rate` apart; tiles go through the pixels that are so apart from one first one after those from
    the other, as split batches. `outside` is read for what lies outside, which is zero; what a tile has beyond the map
    is written to `beyond`.
    """
    height, width = size
    (rows, tops), (columns, lefts) = (_firsts(*side) for side in zip(size, rate, tile, strict=True))
    row, column = (axis.reshape(-1) for axis in np.meshgrid(np.arange(len(tops)), np.arange(len(lefts)), indexing="ij"))
    order = np.lexsort((lefts[column], tops[row], columns[column], rows[row]))
    top, left = tops[row][order], lefts[column][order]

    def pixels(margin: int, other: int) -> Pixels:
        y = top[:, None] + rate[0] * np.arange(-margin, tile[0] + margin)
        x = left[:, None] + rate[1] * np.arange(-margin, tile[1] + margin)
        down, across = y[:, :, None], x[:, None, :]
        inside = (down >= 0) & (down < height) & (across >= 0) & (across < width)
        table = np.where(inside, down * width + across, other)
        return np.ascontiguousarray(table.reshape(len(table), -1), np.int32)

    return pixels(1, outside), pixels(0, beyond)


def _firsts(length: int, rate: int, side: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each tile along a side the first pixel that all of its kind go from, and its own first one."""
    firsts = [(first, pixel) for first in range(min(rate, length)) for pixel in range(first, length, rate * side)]
    kinds, pixels = np.array(firsts, np.int64).T
    return kinds, pixels
