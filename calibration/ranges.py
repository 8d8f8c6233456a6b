"""From a tensor's statistics to the threshold that int8's 127 shall stand for, by several methods at once.

    minmax            the largest |x|
    entropy           the least Kullback-Leibler divergence, as in NVIDIA's talk on TensorRT's 8-bit inference (2017)
    mse               the least mean squared error of the quantised values
    percentile-99.99  the value that 99.99 % of all |x| do not exceed; any other percentage is written the same way

Quantising is symmetric: x / scale is rounded to -127..127, scale = threshold / 127. Zeros are exact under every scale,
so entropy and mse leave them out (half of what a ReLU gives is zeros, which would decide everything); percentiles count
them, as their name says.
"""

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from calibration.statistics import BINS, TensorStatistics
from splitmerge.errors import InputError

__all__ = ["ALL_ZERO", "LEVELS", "METHODS", "check_methods", "threshold", "thresholds"]

METHODS = ("minmax", "entropy", "mse", "percentile-99.9", "percentile-99.99", "percentile-99.999")

LEVELS = 127
"""Steps of int8 from zero to the threshold."""

ALL_ZERO = 1.0
"""Threshold of a tensor that was never anything but zero: any would do, and a scale must not be 0."""

_MERGED = BINS // 2048  # the talk's number of bins
_ENTROPY_LEVELS = 128
_SMALLEST_SHARE = 1 / 512
"""The least threshold that `mse` looks at, of the largest |x|: below it, a step of int8 is not resolved by the bins."""

Floats = NDArray[np.float64]


def check_methods(methods: Iterable[str]) -> tuple[str, ...]:
    """The methods asked for, without repetitions. Raises InputError for one that does not exist."""
    asked = tuple(dict.fromkeys(methods))
    for method in asked:
        if method not in METHODS and _percentage(method) is None:
            raise InputError(
                f"There is no calibration method {method!r}: give one of {', '.join(METHODS)} "
                "(any percentile-P from 50 to 100)."
            )
    return asked


def thresholds(statistics: TensorStatistics, methods: Iterable[str] = METHODS) -> dict[str, float]:
    """The threshold by each method, in the tensor's units; all above 0 and at most the largest |x|.

    Raises InputError for a method that does not exist, and for a tensor without any value.
    """
    return {method: threshold(statistics, method) for method in check_methods(methods)}


def threshold(statistics: TensorStatistics, method: str) -> float:
    """The threshold by one method."""
    (method,) = check_methods([method])
    if not statistics.count:
        raise InputError(f"Tensor {statistics.name} has had no values, so there is no range: calibrate with images.")
    if not statistics.absolute_maximum:
        return ALL_ZERO
    if method == "entropy":
        found = _entropy(statistics)
    elif method == "mse":
        found = _mean_squared_error(statistics)
    else:
        found = _percentile(statistics, _percentage(method) or 100.0)
    return min(found, statistics.absolute_maximum)


def _percentage(method: str) -> float | None:
    match = re.fullmatch(r"percentile-(\d{2,3}(?:\.\d+)?)", method)
    return float(match[1]) if match and 50 <= float(match[1]) <= 100 else None


def _percentile(statistics: TensorStatistics, percentage: float) -> float:
    """Linear within the bin. Where all of that share is zeros, the few values that are not cannot be outliers of it:
    the largest counts then.
    """
    rank = percentage / 100 * statistics.count
    if percentage == 100 or rank <= statistics.zeros:
        return statistics.absolute_maximum
    below = statistics.zeros + np.cumsum(statistics.histogram)
    index = int(np.searchsorted(below, rank))
    inside = 1 - (below[index] - rank) / statistics.histogram[index]
    return float((index + inside) * statistics.bin_width)


def _entropy(statistics: TensorStatistics) -> float:
    """Reference P: the first n of up to 2048 bins, what lies beyond added to the last of them. Candidate Q: these bins
    as 128 levels, each level's count spread evenly over its bins that are not empty. The n with the least KL(P || Q).

    A cut behind an empty bin with something beyond it has no Q there and is out. Of the talk's sums over bins only
    those over levels are left, since Q is constant within a level and the rest of KL are prefix sums of the histogram.
    """
    used = _used(statistics)
    counts = np.add.reduceat(used, np.arange(0, used.size, _MERGED)).astype(np.float64)
    width = _MERGED * statistics.bin_width
    cuts = np.arange(min(_ENTROPY_LEVELS, counts.size), counts.size + 1)
    below, filled, self_information = (_prefix_sums(x) for x in (counts, counts > 0, _x_log_x(counts)))
    total = below[-1]
    edges = -(-np.arange(_ENTROPY_LEVELS + 1) * cuts[:, None] // _ENTROPY_LEVELS)  # [cuts, levels + 1], in bins
    level, spread = np.diff(below[edges]), np.diff(filled[edges])
    outside = total - below[cuts]
    last = counts[cuts - 1]
    possible = (last > 0) & (below[cuts] > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_q = np.where(level > 0, np.log(level / spread / below[cuts][:, None]), 0)
        reference = self_information[cuts - 1] + _x_log_x(last + outside)
        divergence = (reference - (level * log_q).sum(1) - outside * log_q[:, -1]) / total - np.log(total)
    best = int(np.argmin(np.where(possible, divergence, np.inf)))
    return float((cuts[best] - 0.5) * width)


def _mean_squared_error(statistics: TensorStatistics) -> float:
    """The best of 256 thresholds in equal ratios, then the best of 64 between its neighbours."""
    used = _used(statistics)
    filled = np.flatnonzero(used)
    values: Floats = (filled + 0.5) * np.float64(statistics.bin_width)
    counts: Floats = used[filled].astype(np.float64)
    ratio = _SMALLEST_SHARE ** (1 / 255)
    candidates = statistics.absolute_maximum * ratio ** np.arange(256)
    best = _least_error(values, counts, candidates)
    return _least_error(values, counts, best * np.linspace(ratio, 1 / ratio, 65))


def _least_error(values: Floats, counts: Floats, candidates: NDArray[np.floating]) -> float:
    errors = []
    for candidate in candidates:  # one at a time: together they would take candidates x bins of memory
        scale = candidate / LEVELS
        quantised = np.minimum(np.rint(values / scale), LEVELS) * scale
        errors.append(counts @ (values - quantised) ** 2)
    return float(candidates[int(np.argmin(errors))])


def _used(statistics: TensorStatistics) -> NDArray[np.int64]:
    """The histogram up to its last bin that is not empty."""
    return statistics.histogram[: np.flatnonzero(statistics.histogram)[-1] + 1]


def _prefix_sums(values: NDArray[np.generic]) -> Floats:
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _x_log_x(values: Floats) -> Floats:
    return values * np.log(np.maximum(values, 1))  # counts: 0 or at least 1
