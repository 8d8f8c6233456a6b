"""Timing ways to do the same thing beside each other."""

import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from splitmerge.package import Package

__all__ = ["in_turn", "noise_frame"]

Frame = NDArray[np.uint8]


def in_turn(
    runs: Mapping[str, Callable[[Frame], object]], frame: Frame, rounds: int, seconds: float | None = None
) -> dict[str, float]:
    """Median milliseconds that each takes for a frame, in turn, so that whatever slows the machine slows them alike.

    A first round is to warm up and does not count. With `seconds` no round begins that late, and where the first takes
    as long it has to do.
    """
    taken: dict[str, list[float]] = {name: [] for name in runs}
    began = time.perf_counter()
    for turn in range(rounds + 1):
        if turn and seconds is not None and time.perf_counter() - began > seconds:
            break
        for name, run in runs.items():
            start = time.perf_counter()
            run(frame)
            taken[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(times[1:] or times) for name, times in taken.items()}


def noise_frame(package: Package) -> Frame:
    """A frame uint8 [H,W,3] of the package's size, the same one every time."""
    return np.random.default_rng(0).integers(0, 256, (*package.manifest.input.size, 3), np.uint8)
