"""One side of a map, height or width: where windows lie, and resampling as a matrix `[results,length]`."""

from collections.abc import Mapping, Sequence
from math import floor
from typing import Any

import numpy as np

from engines.native.whole.network import Floats, Size
from splitmerge.errors import EngineError

__all__ = ["linear_upsampling", "means", "windows", "windows_along"]


def windows_along(length: int, taps: int, stride: int, rate: int, pads: Sequence[int]) -> int:
    """How many windows fit a side with padding."""
    return (length + sum(pads) - rate * (taps - 1) - 1) // stride + 1


def windows(length: int, count: int, taps: int, stride: int, before: int, rate: int = 1) -> list[list[int | None]]:
    """Of each result the pixels of its taps, None for those outside."""
    firsts = (number * stride - before for number in range(count))
    pixels = ([first + rate * tap for tap in range(taps)] for first in firsts)
    return [[one if 0 <= one < length else None for one in window] for window in pixels]


def means(length: int, taken: Sequence[Sequence[int | None]]) -> Floats:
    """The mean of each window's pixels that are not outside."""
    matrix = np.zeros((len(taken), length), np.float32)
    for row, window in zip(matrix, taken, strict=True):
        inside = [one for one in window if one is not None]
        row[inside] = 1 / len(inside)
    return matrix


def linear_upsampling(
    name: str, size: Size, scales: Any | None, attributes: Mapping[str, Any]
) -> tuple[Floats, Floats]:
    """Matrices of height and width of the Resize `name`.

    Raises EngineError where it is no linear one with pixel centres at halves.
    """
    mode, centres = attributes.get("mode", b"nearest"), attributes.get("coordinate_transformation_mode", b"half_pixel")
    linear = mode == b"linear" and centres in (b"half_pixel", b"pytorch_half_pixel")
    if scales is None or not linear or attributes.get("antialias", 0):
        raise EngineError(f"its node {name} (Resize) is no linear one with pixel centres at halves")
    factors = [float(scale) for scale in scales]
    if len(factors) != 4 or factors[:2] != [1, 1] or not all(factor >= 1 for factor in factors):
        raise EngineError(f"its node {name} (Resize) does not enlarge height and width alone")
    sides = size.height, size.width
    if tuple(_count(length, factor) for length, factor in zip(sides, factors[2:], strict=True)) == sides:
        return np.eye(size.height, dtype=np.float32), np.eye(size.width, dtype=np.float32)  # ONNX Runtime copies then
    down, across = (_linear(length, factor) for length, factor in zip(sides, factors[2:], strict=True))
    return down, across


def _count(length: int, factor: float) -> int:
    """How many results a side has, as ONNX Runtime counts."""
    return floor(np.float32(length) * np.float32(factor))


def _linear(length: int, factor: float) -> Floats:
    matrix = np.zeros((_count(length, factor), length), np.float32)
    for index, row in enumerate(matrix):
        place = (index + 0.5) / factor - 0.5
        above = floor(place)
        row[max(above, 0)] += 1 - (place - above)
        row[min(above + 1, length - 1)] += place - above
    return matrix
