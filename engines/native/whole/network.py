"""A network as steps on maps: what is read from its graph, before weights are laid out for a processor.

Values are named maps [height,width,channels]. Values that are put side by side, channel after channel, are `joined`
and take no step: each is computed where the others have left room for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.native.trunk import Pair

__all__ = ["Convolution", "Floats", "Largest", "Network", "Resampling", "Scale", "Size", "Step"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Size:
    """Of a map."""

    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class Convolution:
    """result = source convolved with weights [out,in,rows,columns] + bias (+ added), at least 0 with `relu`. Taps are
    `rate` pixels apart, the first ones `before` pixels above and left of a result's own; what lies outside is zero."""

    source: str
    result: str
    weights: Floats
    bias: Floats
    stride: Pair = (1, 1)
    rate: Pair = (1, 1)
    before: Pair = (0, 0)
    added: str | None = None
    relu: bool = False


@dataclass(frozen=True)
class Resampling:
    """result = down [rows,height] source across^T [columns,width] (+ added): means, and what lies between pixels."""

    source: str
    result: str
    down: Floats
    across: Floats
    added: str | None = None
    relu: bool = False


@dataclass(frozen=True)
class Largest:
    """The largest of `taps` pixels, `stride` from one result to the next; what lies outside is left out."""

    source: str
    result: str
    taps: Pair
    stride: Pair
    before: Pair = (0, 0)
    added: None = None
    relu: bool = False


@dataclass(frozen=True)
class Scale:
    """result = source * factors + offsets, channel by channel."""

    source: str
    result: str
    factors: Floats
    offsets: Floats
    added: None = None
    relu: bool = False


Step = Convolution | Resampling | Largest | Scale


@dataclass(frozen=True)
class Network:
    """Frames `input` uint8 [n,height,width,channels] through `steps` to labels `output` uint8 [n,height,width].

    The value `first` is (frames - mean) * factors, zero where it is larger than they are. Of the value `logits`,
    resampled by `down` and `across`, the number of the largest channel counts. `sizes` are those of all values,
    `joined` what some of them are made of.
    """

    input: str
    first: str
    mean: Floats
    factors: Floats
    sizes: Mapping[str, Size]
    joined: Mapping[str, tuple[str, ...]]
    steps: tuple[Step, ...]
    logits: str
    down: Floats
    across: Floats
    output: str
