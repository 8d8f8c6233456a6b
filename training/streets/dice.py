"""Keyed random numbers: the same integers give the same draws, in any process and in any order."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

__all__ = ["Dice", "keyed", "looks_table"]

_T = TypeVar("_T")


def keyed(*key: int) -> np.random.Generator:
    """A generator that depends on nothing but `key` (non-negative integers)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(list(key))))


def looks_table(rows: int, *key: int) -> list[tuple[float, ...]]:
    """`rows` times ten uniform numbers in [0, 1): how the members of a stream of things look."""
    return [tuple(row) for row in keyed(*key).random((rows, 10)).tolist()]


class Dice:
    """Scalar draws from one keyed stream. Drawing 256 at a time is ten times faster than one at a time."""

    __slots__ = ("_buffer", "_generator")

    def __init__(self, *key: int) -> None:
        self._generator = keyed(*key)
        self._buffer: list[float] = []

    def unit(self) -> float:
        """Uniform in [0, 1)."""
        if not self._buffer:
            self._buffer = self._generator.random(256).tolist()
        return self._buffer.pop()

    def between(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * self.unit()

    def chance(self, probability: float) -> bool:
        return self.unit() < probability

    def pick(self, options: Sequence[_T]) -> _T:
        return options[int(self.unit() * len(options))]

    def looks(self) -> tuple[float, ...]:
        """Ten uniform numbers: enough for a thing's colours and proportions."""
        if len(self._buffer) < 10:
            self._buffer = self._generator.random(256).tolist()
        drawn = tuple(self._buffer[-10:])
        del self._buffer[-10:]
        return drawn
