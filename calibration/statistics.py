"""What is remembered of a tensor while images stream by: some numbers and a histogram of |x|, however much comes.

The histogram's range is a power of two. A value beyond it doubles the range, and neighbouring bins merge in pairs.
Because the edges of wider bins are edges of the narrower ones, and scaling by a power of two is exact, the bins hold
what they would hold had the last range been there from the start: the order of the images changes no count.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from splitmerge.errors import InputError

__all__ = ["BINS", "TensorStatistics"]

Floats = NDArray[np.float64]

BINS = 8192
"""Bins of the histogram. The largest value lies in the upper half, so a bin is at most 1/4096 of it: a hundredth of a
step of int8 even where the range is cut to a third."""

_LOG_BINS = BINS.bit_length() - 1
_SMALLEST_EXPONENT = -100
"""No range below 2**-100: float32 could not hold the factor from values to bins."""

_CHUNK = 1 << 17
"""Values looked at together: with their temporaries 2 MiB, which stay in a core's cache."""


@dataclass
class TensorStatistics:
    """Statistics of one tensor. `histogram[i]` counts the values with i <= |x| / bin_width < i + 1, but not the zeros.

    `lowest, highest, totals` float64 `[C]` are the extremes and the sums of each channel, that is, of each index along
    axis 1 of tensors `[N,C,H,W]`; tensors of another rank count as one channel. Empty before the first value.
    """

    name: str
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    exponent: int = _SMALLEST_EXPONENT
    count: int = 0
    zeros: int = 0
    lowest: Floats = field(default_factory=lambda: np.zeros(0))
    highest: Floats = field(default_factory=lambda: np.zeros(0))
    totals: Floats = field(default_factory=lambda: np.zeros(0))

    @property
    def minimum(self) -> float:
        """The smallest value; 0 before the first."""
        return float(self.lowest.min()) if self.count else 0.0

    @property
    def maximum(self) -> float:
        """The largest value; 0 before the first."""
        return float(self.highest.max()) if self.count else 0.0

    @property
    def absolute_maximum(self) -> float:
        """The largest |x|."""
        return max(-self.minimum, self.maximum)

    @property
    def channel_ranges(self) -> Floats:
        """The largest |x| of each channel, `[C]`."""
        return np.maximum(-self.lowest, self.highest)

    @property
    def channel_means(self) -> Floats:
        """The mean of each channel, `[C]`."""
        return self.totals * len(self.totals) / max(1, self.count)

    @property
    def bin_width(self) -> float:
        """Width of the histogram's bins, in the tensor's units."""
        return math.ldexp(1.0, self.exponent - _LOG_BINS)

    def update(self, values: NDArray[np.floating], where: str = "the data") -> None:
        """Take in all values of an array of any shape. `where` they come from is told in errors.

        Raises InputError where values are not floating-point numbers or not finite, ValueError for another number of
        channels than before; the statistics are as before then.
        """
        if not np.issubdtype(values.dtype, np.floating):
            raise InputError(
                f"Tensor {self.name} is {values.dtype}, and ranges are for floating-point tensors: leave it out."
            )
        flat = values.reshape(-1)
        if not flat.size:
            return
        channels = values.shape[1] if values.ndim == 4 else 1
        if self.count and len(self.totals) != channels:
            raise ValueError(f"Tensor {self.name} had {len(self.totals)} channels and has {channels}.")
        by_channel = values.reshape(-1, channels, values[0, 0].size if values.ndim == 4 else flat.size)
        lowest, highest = by_channel.min((0, 2)), by_channel.max((0, 2))  # either is NaN where a value is
        if not (np.isfinite(lowest).all() and np.isfinite(highest).all()):
            raise InputError(self._not_finite(flat, where))
        self._include(max(-float(lowest.min()), float(highest.max())))
        totals = by_channel.sum((0, 2), np.float64)
        if self.count:
            lowest, highest = np.minimum(self.lowest, lowest), np.maximum(self.highest, highest)
            totals += self.totals
        self.lowest, self.highest, self.totals = lowest.astype(np.float64), highest.astype(np.float64), totals
        self.count += flat.size
        scale = math.ldexp(1.0, _LOG_BINS - self.exponent)
        for start in range(0, flat.size, _CHUNK):
            self._add(flat[start : start + _CHUNK], scale)

    def copy(self) -> "TensorStatistics":
        """The statistics as they are now."""
        return replace(self, histogram=self.histogram.copy())  # the other arrays are never changed in place

    def _add(self, chunk: NDArray[np.floating], scale: float) -> None:
        zeros = chunk.size - int(np.count_nonzero(chunk))
        positions = np.abs(chunk, dtype=np.result_type(chunk.dtype, np.float32))
        positions *= scale
        self.histogram += np.bincount(positions.astype(np.intp), minlength=BINS)
        self.histogram[0] -= zeros
        self.zeros += zeros

    def _include(self, largest: float) -> None:
        """Widen the range until `largest` lies below its end."""
        exponent = max(math.frexp(largest)[1], _SMALLEST_EXPONENT) if largest else _SMALLEST_EXPONENT
        doublings = exponent - self.exponent
        if doublings <= 0:
            return
        merged = self.histogram.reshape(-1, 1 << min(doublings, _LOG_BINS)).sum(1)
        self.histogram = np.zeros(BINS, np.int64)
        self.histogram[: merged.size] = merged
        self.exponent = exponent

    def _not_finite(self, flat: NDArray[np.floating], where: str) -> str:
        missing = int(np.isnan(flat).sum())
        infinite = int(np.isinf(flat).sum())
        return (
            f"Tensor {self.name} holds {missing} NaN and {infinite} infinite values of {flat.size} in {where}, and a "
            "range needs finite ones: check the network's weights, or leave the image out."
        )
