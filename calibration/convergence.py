"""How many images are enough: the ranges after 1, 2, 4, 8, ... images against the ranges after all of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.collect import collect
from calibration.images import Images
from calibration.ranges import METHODS, check_methods, thresholds
from calibration.statistics import TensorStatistics
from splitmerge.errors import InputError
from splitmerge.files import new_file
from splitmerge.package import Package

__all__ = ["Convergence", "converge", "convergence_table", "draw_convergence"]

_COLOURS_BGR = (
    (60, 60, 60),
    (180, 110, 20),
    (40, 140, 40),
    (30, 120, 240),
    (40, 40, 210),
    (170, 50, 150),
    (130, 130, 0),
)
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 960, 540, 80, 230, 50, 60
_LEAST = 1e-4
"""What the plot shows at least, since its scale is logarithmic: 0.01 %."""


@dataclass(frozen=True)
class Convergence:
    """`changes[method]` float64 `[counts, tensors]`: |threshold after so many images / threshold after all - 1|."""

    counts: tuple[int, ...]
    images: int
    tensors: tuple[str, ...]
    changes: Mapping[str, NDArray[np.float64]]

    def median(self, method: str) -> list[float]:
        """Half of the tensors change less than this, for each count."""
        return [float(value) for value in np.median(self.changes[method], axis=1)]

    def worst(self, method: str) -> list[float]:
        """No tensor changes more than this, for each count."""
        return [float(value) for value in self.changes[method].max(axis=1)]


def converge(
    package: Package,
    images: Images,
    methods: Iterable[str] = METHODS,
    tensors: Iterable[str] | None = None,
    progress: bool = True,
) -> Convergence:
    """Collect over all images and compare on the way. Raises what `collect` raises, and for fewer than 2 images."""
    methods = check_methods(methods)
    at: dict[int, list[dict[str, float]]] = {}

    def seen(count: int, statistics: Mapping[str, TensorStatistics]) -> None:
        if count & (count - 1) == 0:
            at[count] = [thresholds(s, methods) for s in statistics.values()]

    collected = collect(package, images, tensors, progress, seen=seen)
    if collected.images < 2:
        raise InputError(f"{images.name} gave one image, and comparing ranges needs 2 or more: name more data.")
    final = [thresholds(s, methods) for s in collected.statistics.values()]
    counts = tuple(count for count in sorted(at) if count < collected.images)
    changes = {
        method: np.array(
            [
                [abs(one[method] / all_[method] - 1) for one, all_ in zip(at[count], final, strict=True)]
                for count in counts
            ]
        )
        for method in methods
    }
    return Convergence(counts, collected.images, tuple(collected.statistics), changes)


def convergence_table(convergence: Convergence) -> str:
    """Median and worst change in per cent, a row for each number of images, a column for each method."""
    columns = [
        [f"{100 * m:.1f} / {100 * w:.1f}" for m, w in zip(convergence.median(x), convergence.worst(x), strict=True)]
        for x in convergence.changes
    ]
    rows = [["images", *convergence.changes]]
    rows += [[str(count), *(column[i] for column in columns)] for i, count in enumerate(convergence.counts)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    title = (
        f"Change of thresholds against those after {convergence.images} images, median / worst of "
        f"{len(convergence.tensors)} tensors in %"
    )
    return "\n".join([title, *lines])


def draw_convergence(convergence: Convergence, path: Path) -> None:
    """Write a plot: images against change, both logarithmic; full lines are medians, thin ones the worst tensors."""
    canvas = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
    _text(canvas, f"Change of thresholds against {convergence.images} images: median (bold), worst tensor", (_LEFT, 30))
    for count in convergence.counts:
        x = _x(convergence, count)
        cv2.line(canvas, (x, _TOP), (x, _HEIGHT - _BOTTOM), (235, 235, 235), 1)
        _text(canvas, str(count), (x - 5 * len(str(count)), _HEIGHT - _BOTTOM + 22))
    _text(canvas, "images", ((_LEFT + _WIDTH - _RIGHT) // 2 - 25, _HEIGHT - 12))
    for power in range(-4, 1):
        y = _y(10.0**power)
        cv2.line(canvas, (_LEFT, y), (_WIDTH - _RIGHT, y), (225, 225, 225), 1)
        _text(canvas, f"{100 * 10.0**power:g} %", (10, y + 5))
    for index, method in enumerate(convergence.changes):
        colour = _COLOURS_BGR[index % len(_COLOURS_BGR)]
        for values, thickness in ((convergence.median(method), 3), (convergence.worst(method), 1)):
            points = [(_x(convergence, n), _y(v)) for n, v in zip(convergence.counts, values, strict=True)]
            cv2.polylines(canvas, [np.array(points, np.int32)], False, colour, thickness, cv2.LINE_AA)
            for point in points:
                cv2.circle(canvas, point, thickness + 1, colour, -1, cv2.LINE_AA)
        y = _TOP + 20 + 28 * index
        cv2.line(canvas, (_WIDTH - _RIGHT + 20, y), (_WIDTH - _RIGHT + 50, y), colour, 3, cv2.LINE_AA)
        _text(canvas, method, (_WIDTH - _RIGHT + 60, y + 5))
    with new_file(path) as temporary:
        if not cv2.imwrite(str(temporary), canvas):
            raise InputError(f"{path} cannot be written as a picture: name a .png file.")


def _x(convergence: Convergence, count: int) -> int:
    span = max(1.0, float(np.log2(convergence.counts[-1])))
    return _LEFT + round((_WIDTH - _LEFT - _RIGHT) * float(np.log2(count)) / span)


def _y(change: float) -> int:
    share = float(np.log10(min(max(change, _LEAST), 1)) / np.log10(_LEAST))
    return _TOP + round((_HEIGHT - _TOP - _BOTTOM) * share)


def _text(canvas: NDArray[np.uint8], text: str, at: tuple[int, int]) -> None:
    cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
