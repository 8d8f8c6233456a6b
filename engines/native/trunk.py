"""A trunk as a list of convolutions on maps of all pixels.

Splits and merges are no steps: a value keeps all its pixels in the image's order, and a convolution behind a split by
2x2 has taps two pixels apart. ReLU and sums become part of the convolution before them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Convolution", "Pair", "Trunk"]

Pair = tuple[int, int]
"""Rows and columns."""


@dataclass(frozen=True)
class Convolution:
    """result = source convolved with weights [out,in,taps,taps] + bias (+ added), at least 0 with `relu`. Taps, 1 or 3
    a side, are `step` pixels apart, and what lies outside the map is zero."""

    source: str
    result: str
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    step: Pair = (1, 1)
    added: str | None = None
    relu: bool = False


@dataclass(frozen=True)
class Trunk:
    """Features `input` float32 [n,channels,height,width] through `steps` to `output`, labels uint8 [n,height,width]: of
    each pixel the number of the largest channel of the value `logits`."""

    input: str
    channels: int
    height: int
    width: int
    steps: tuple[Convolution, ...]
    logits: str
    output: str
