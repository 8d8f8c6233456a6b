"""Quantiles of ages over days, in a fixed amount of memory."""

import math

import numpy as np

__all__ = ["Ages"]

_LEAST_MS, _STEP = 0.01, 1.01


class Ages:
    """Counts of milliseconds in bins that are 1 % wide, from 0.01 ms to over a day; quantiles are exact to 1 %."""

    def __init__(self) -> None:
        self._counts = np.zeros(2400, np.int64)
        self._most = 0.0

    def add(self, milliseconds: float) -> None:
        place = math.ceil(math.log(max(milliseconds, _LEAST_MS) / _LEAST_MS) / math.log(_STEP))
        self._counts[min(place, self._counts.size - 1)] += 1
        self._most = max(self._most, milliseconds)

    def quantile(self, share: float) -> float:
        """The age in milliseconds that `share` (0 to 1) of them do not exceed."""
        reached = np.cumsum(self._counts) >= max(1.0, share * self._counts.sum())
        return float(min(self._most, _LEAST_MS * _STEP ** int(reached.argmax())))

    @property
    def facts(self) -> dict[str, float] | None:
        """p50, p95, p99 and the oldest, in milliseconds; None where none was added."""
        if not self._counts.any():
            return None
        return {f"p{n}": round(self.quantile(n / 100), 3) for n in (50, 95, 99)} | {"max": round(self._most, 3)}
