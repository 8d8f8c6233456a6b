"""One way to do a piece of work on a GPU, what it took, and the table of all of them.

Times are medians of runs that each wait for their result: `wall_ms` by this process's clock, with what 90 and 99 in a
hundred stayed below, `gpu_ms` by CUDA events where one stream does all the work. Memory is everything that the way
adds: free memory before it was set up less the lowest free memory while it was set up and first run, asked for every
millisecond, in a pass of its own that is not timed. PyTorch keeps what it has freed, so its own count of what was in
use at once stands beside."""

import re
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu_power import Power

__all__ = ["FRAME", "RESIDENT", "LowWater", "Made", "Row", "Way", "measure", "ratios", "slug", "table"]

FRAME = "whole frame"
RESIDENT = "whole frame, transfers excluded: the frame is on the GPU and the labels stay there"
"""Groups of rows. A plain whole frame's time includes the copies from and to the host's memory."""

_WARM_UP, _FEWEST, _MOST = 3, 5, 200
_EVERY_S = 0.001
Free = Callable[[], int]


@dataclass(frozen=True)
class Made:
    """A way that is set up. `run` returns when the work is done, with labels uint8 [H,W] where it gives some.

    `gpu_ms` is the last run's time by events, `peak_bytes` what a library itself counted as the most in use.
    """

    run: Callable[[], NDArray[np.uint8] | None]
    gpu_ms: Callable[[], float] | None = None
    peak_bytes: Callable[[], int] | None = None


@dataclass(frozen=True)
class Way:
    """`make` sets it up and leaves on the stack what takes it down. `multiply_adds` and `bytes` are those of one run.

    Rows of a `group` do the same piece of work; times are compared with its `baseline`. Where `absent` says why
    something cannot be had, nothing is made.
    """

    group: str
    name: str
    make: Callable[[ExitStack], Made] | None = None
    multiply_adds: int | None = None
    bytes: int | None = None
    baseline: bool = False
    absent: str = ""


@dataclass(frozen=True)
class Row:
    """What a way took; `skipped` says why it did not run."""

    group: str
    name: str
    skipped: str = ""
    wall_ms: float | None = None
    wall_ms_least: float | None = None
    wall_ms_90: float | None = None
    wall_ms_99: float | None = None
    gpu_ms: float | None = None
    runs: int = 0
    memory_mib: float | None = None
    memory_by: str = ""
    torch_peak_mib: float | None = None
    tflops: float | None = None
    gib_per_s: float | None = None
    watts: float | None = None
    fps_per_watt: float | None = None
    agreement: float | None = None
    baseline: bool = False

    def to_json(self) -> dict[str, Any]:
        """Without what is unknown."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "", False)}


class LowWater:
    """The lowest free memory while it is entered; None where nobody can be asked."""

    def __init__(self, free: Free | None) -> None:
        self._free, self._stop = free, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.before = self.lowest = free() if free else None

    @property
    def taken_mib(self) -> float | None:
        """How far free memory went down."""
        if self.before is None or self.lowest is None:
            return None
        return max(0.0, (self.before - self.lowest) / 2**20)

    def __enter__(self) -> "LowWater":
        if self._free:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._free:
            self._thread.join()

    def _watch(self) -> None:
        assert self._free is not None and self.lowest is not None
        while True:
            self.lowest = min(self.lowest, self._free())
            if self._stop.wait(_EVERY_S):
                self.lowest = min(self.lowest, self._free())
                return


def measure(
    way: Way,
    free: Free | None,
    seconds: float,
    expected: NDArray[np.uint8] | None,
    meter: Callable[[], float] | None = None,
) -> tuple[Row, NDArray[np.uint8] | None]:
    """The way's row and its labels, compared with `expected`. Whatever a library raises is why there is no time.

    `meter` gives the GPU's watts of now.
    """
    if way.make is None:
        return Row(way.group, way.name, skipped=way.absent), None
    try:
        with ExitStack() as stack:
            with LowWater(free) as memory:
                made = way.make(stack)
                labels = made.run()
            peak = made.peak_bytes() if made.peak_bytes else None
            with Power(meter) as power:
                wall_ms, gpu_ms = _times(made, seconds)
    except Exception as error:  # another library's: it is reported, and the other rows go on
        return Row(way.group, way.name, skipped=_first_words(error)), None
    agreement = None if labels is None or expected is None else float(np.mean(labels == expected))
    median = statistics.median(wall_ms)
    row = Row(
        way.group,
        way.name,
        wall_ms=round(median, 4),
        wall_ms_least=round(min(wall_ms), 4),
        wall_ms_90=round(float(np.percentile(wall_ms, 90)), 4),
        wall_ms_99=round(float(np.percentile(wall_ms, 99)), 4),
        gpu_ms=round(statistics.median(gpu_ms), 4) if gpu_ms else None,
        runs=len(wall_ms),
        memory_mib=None if memory.taken_mib is None else round(memory.taken_mib, 1),
        memory_by="" if memory.taken_mib is None else "lowest free memory",
        torch_peak_mib=None if peak is None else round(peak / 2**20, 1),
        tflops=None if way.multiply_adds is None else round(2 * way.multiply_adds / median / 1e9, 3),
        gib_per_s=None if way.bytes is None else round(way.bytes / 2**30 / (median / 1e3), 2),
        watts=None if power.watts is None else round(power.watts, 1),
        fps_per_watt=None
        if not power.watts or not way.group.startswith(FRAME)
        else round(1e3 / (sum(wall_ms) / len(wall_ms)) / power.watts, 4),
        agreement=agreement,
        baseline=way.baseline,
    )
    return row, labels


def _times(made: Made, seconds: float) -> tuple[list[float], list[float]]:
    """Milliseconds of each run, by the clock and by events."""
    for _ in range(_WARM_UP):
        made.run()
    wall: list[float] = []
    gpu: list[float] = []
    begun = time.perf_counter()
    while len(wall) < _FEWEST or (time.perf_counter() - begun < seconds and len(wall) < _MOST):
        start = time.perf_counter()
        made.run()
        wall.append((time.perf_counter() - start) * 1e3)
        if made.gpu_ms:
            gpu.append(made.gpu_ms())
    return wall, gpu


def ratios(rows: Sequence[Row]) -> list[float | None]:
    """How many times as fast each row is as its group's baseline (or first row that ran, where that did not)."""
    result: list[float | None] = []
    for row in rows:
        ran = [other for other in rows if other.group == row.group and other.wall_ms]
        against = next((other for other in ran if other.baseline), ran[0] if ran else None)
        result.append(against.wall_ms / row.wall_ms if row.wall_ms and against and against.wall_ms else None)
    return result


def table(rows: Sequence[Row]) -> str:
    """All rows, group by group."""
    heads: tuple[tuple[str, int], ...] = (
        ("ms", 9),
        ("90 %", 9),
        ("99 %", 9),
        ("GPU ms", 9),
        ("times", 7),
        ("MiB", 8),
        ("torch MiB", 9),
        ("TFLOP/s", 8),
        ("GiB/s", 7),
    )
    powered = any(row.fps_per_watt is not None for row in rows)
    heads += (("fps/W", 7),) if powered else ()
    lines = [f"{'':<52} {' '.join(f'{name:>{width}}' for name, width in heads)} {'agreement':>10}"]
    group = ""
    for row, ratio in zip(rows, ratios(rows), strict=True):
        if row.group != group:
            group = row.group
            lines.append(group)
        name = f"  {row.name}"
        if row.skipped:
            lines.append(f"{name:<52} left out: {row.skipped}")
            continue
        numbers = (
            _cell(row.wall_ms, 9, 3),
            _cell(row.wall_ms_90, 9, 3),
            _cell(row.wall_ms_99, 9, 3),
            _cell(row.gpu_ms, 9, 3),
            _cell(ratio, 7, 2),
            _cell(row.memory_mib, 8, 0),
            _cell(row.torch_peak_mib, 9, 0),
            _cell(row.tflops, 8, 2),
            _cell(row.gib_per_s, 7, 1),
            *([_cell(row.fps_per_watt, 7, 3)] if powered else []),
            _cell(row.agreement, 10, 6),
        )
        lines.append(f"{name:<52} {' '.join(numbers)}".rstrip())
    return "\n".join(lines)


def slug(name: str) -> str:
    """A GPU's name as a file's: `NVIDIA GeForce RTX 4090` to `nvidia-geforce-rtx-4090`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "gpu"


def _cell(value: float | None, width: int, digits: int) -> str:
    return " " * width if value is None else f"{value:>{width}.{digits}f}"


def _first_words(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
