"""What a convolution takes, directly and by minimal filtering: what is faster is chosen when it is planned."""

from dataclasses import dataclass
from math import prod
from typing import Any

from engines.native.kernels import Tile
from engines.native.trunk import Pair
from engines.native.whole.network import Size
from engines.native.whole.sides import windows

__all__ = ["TILES", "Windows", "fastest_tile", "products"]

TILES: tuple[Tile, ...] = ((2, 2), (2, 4), (4, 4), (4, 8))

_PRODUCT, _MOVED, _WEIGHT = 9.5, 150, 300
"""Picoseconds of one core: for a product of a pixel's number and a weight, for a number of a tile's point that is made
or used, and to bring a weight from memory (AMD EPYC, Zen 4, 64 to 2048 channels)."""


@dataclass(frozen=True)
class Windows:
    """What a convolution reads for each pixel."""

    taps: Pair
    stride: Pair
    rate: Pair
    before: Pair

    @classmethod
    def of(cls, step: Any) -> "Windows":
        """Those of a step: of a convolution with weights, or of one that is planned."""
        taps = step.taps if hasattr(step, "taps") else step.weights.shape[2:]
        return cls((taps[0], taps[1]), step.stride, step.rate, step.before)

    def can_be_tiled(self, source: Size, result: Size) -> bool:
        """Whether it is a 3x3 convolution that keeps height and width."""
        alike = (source.height, source.width) == (result.height, result.width)
        return self.taps == (3, 3) and self.stride == (1, 1) and self.before == self.rate and alike


def products(read: Windows, source: Size, result: Size, tile: Tile | None) -> int:
    """How often numbers of a pixel, or of a tile's point, are multiplied by a matrix of weights. Directly that is for
    each tap inside the map."""
    sides = list(enumerate(zip((source.height, source.width), (result.height, result.width), strict=True)))
    if tile is None:
        return prod(
            sum(
                one is not None
                for window in windows(
                    length, count, read.taps[side], read.stride[side], read.before[side], read.rate[side]
                )
                for one in window
            )
            for side, (length, count) in sides
        )
    return prod(_tiles(length, read.rate[side], tile[side]) * (tile[side] + 2) for side, (length, _) in sides)


def fastest_tile(read: Windows, source: Size, result: Size, channels: Pair) -> Tile | None:
    """The tile that a convolution of channels in and out takes least time with, None where that is directly."""
    if not read.can_be_tiled(source, result):
        return None
    pairs = prod(channels)
    costs: dict[Tile | None, float] = {
        None: pairs * (products(read, source, result, None) * _PRODUCT + prod(read.taps) * _WEIGHT)
    }
    for tile in TILES:
        made, points = products(read, source, result, tile), (tile[0] + 2) * (tile[1] + 2)
        costs[tile] = pairs * (made * _PRODUCT + points * _WEIGHT) + made * sum(channels) * _MOVED
    return min(costs, key=lambda tile: costs[tile])


def _tiles(length: int, rate: int, side: int) -> int:
    """How many tiles of pixels `rate` apart a side has."""
    return sum(-(-len(range(first, length, rate)) // side) for first in range(min(rate, length)))
