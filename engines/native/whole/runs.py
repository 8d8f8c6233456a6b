"""A convolution taken directly: which numbers of a map are multiplied for which pixels.

Pixels are in groups that have the same taps inside the map; taps outside are not multiplied. Taps of a row that are
neighbours are one run of numbers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.native.trunk import Pair
from engines.native.whole.sides import windows

__all__ = ["Group", "groups"]

Table = NDArray[np.int32]


@dataclass(frozen=True)
class Group:
    """Pixels `writes` [rows] and where they read: the pixel that each run begins at, `reads` [rows,runs]. A run has
    `taps` taps, the first of which is the number in `first_taps` [runs], row by row of all taps."""

    reads: Table
    writes: Table
    first_taps: tuple[int, ...]
    taps: int


def groups(
    source: Pair, result: Pair, taps: Pair, stride: Pair, rate: Pair, before: Pair, joins: bool
) -> Iterator[Group]:
    """The groups of all pixels of a map of size `result`. `joins` tells whether pixels lie next to each other."""
    (_, width), (_, columns) = source, result
    down, across = (
        _alike(windows(*numbers)) for numbers in zip(source, result, taps, stride, before, rate, strict=True)
    )
    for rows, taken_rows, tops in down:
        for places, taken_columns, lefts in across:
            neighbours = joins and rate[1] == 1
            runs = taken_columns[:1] if neighbours else taken_columns
            firsts = [row * taps[1] + column for row in taken_rows for column in runs]
            lefts_of_runs = lefts[:, : len(runs)]
            reads = tops[:, None, :, None] * width + lefts_of_runs[None, :, None, :]
            writes = rows[:, None] * columns + places[None, :]
            yield Group(
                np.ascontiguousarray(reads.reshape(writes.size, -1), np.int32),
                np.ascontiguousarray(writes.reshape(-1), np.int32),
                tuple(firsts),
                len(taken_columns) if neighbours and taken_columns else 1,
            )


def _alike(
    taken: Sequence[Sequence[int | None]],
) -> list[tuple[NDArray[np.int64], list[int], NDArray[np.int64]]]:
    """Results along a side by the taps that they have inside: the results, those taps, and their pixels
    [results,taps]."""
    found: dict[tuple[int, ...], list[int]] = {}
    for index, window in enumerate(taken):
        found.setdefault(tuple(tap for tap, pixel in enumerate(window) if pixel is not None), []).append(index)
    return [
        (
            np.array(indices),
            list(inside),
            np.array([[taken[index][tap] for tap in inside] for index in indices], np.int64).reshape(
                len(indices), len(inside)
            ),
        )
        for inside, indices in found.items()
    ]
