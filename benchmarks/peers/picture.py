"""Time against size and memory against size, two panels for each network; both axes are logarithmic."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.contestants import LIMIT
from benchmarks.peers.packages import Case
from benchmarks.peers.rows import Row
from runtime.drawing import INK, put_text, text_width
from splitmerge.files import new_file

__all__ = ["draw", "panels_of"]

Canvas = NDArray[np.uint8]
Line = tuple[str, list[tuple[int, float]]]
Place = Callable[[float, float], tuple[int, int]]

WIDTH, HEIGHT = 640, 380
LEFT, RIGHT, TOP, BOTTOM = 70, 24, 44, 34
TEXT, RADIUS = 8, 5
PALE = (228, 228, 228)
COLOURS = {
    "this project": (60, 60, 220),
    "PyTorch eager": (150, 110, 40),
    "PyTorch compiled": (200, 180, 60),
    "ONNX Runtime": (40, 140, 230),
    "OpenVINO": (70, 150, 60),
}
MEASURES: tuple[tuple[str, str], ...] = (("median_ms", "ms a frame"), ("memory_mib", "MiB above the loaded model"))


def draw(path: Path, cases: Sequence[tuple[Case, Sequence[Row]]]) -> None:
    """Write the picture, a .png. Raises InputError where it cannot be written."""
    networks = list(dict.fromkeys((case.network, case.width) for case, _ in cases))
    strips = []
    for network, width in networks:
        of_network = [(case, rows) for case, rows in cases if (case.network, case.width) == (network, width)]
        title = f"{network} of width {width}: "
        strips.append(np.hstack([_panel(panels_of(of_network, m), title + words) for m, words in MEASURES]))
    with new_file(path) as temporary:
        picture = np.vstack([*strips, _legend(2 * WIDTH)])
        temporary.write_bytes(cv2.imencode(".png", picture)[1].tobytes())


def panels_of(cases: Sequence[tuple[Case, Sequence[Row]]], measure: str) -> list[Line]:
    """A line for each contestant that has the measure somewhere: its name and its points (pixels, value)."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for case, rows in cases:
        for row in rows:
            value = getattr(row, measure)
            if row.role != LIMIT and value is not None and value > 0:
                lines.setdefault(row.name, []).append((case.pixels, value))
    return [(name, sorted(points)) for name, points in lines.items()]


def _panel(lines: list[Line], title: str) -> Canvas:
    canvas = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    put_text(canvas, title, LEFT, TOP - 14, TEXT + 1)
    points = [point for _, line in lines for point in line]
    if not points:
        put_text(canvas, "nothing was measured", LEFT, HEIGHT // 2, TEXT)
        return canvas
    across = [math.log10(pixels) for pixels, _ in points]
    along = [math.log10(value) for _, value in points]
    low, high = min(across) - 0.1, max(across) + 0.1
    bottom, top = min(along) - 0.1, max(along) + 0.1

    def place(x: float, y: float) -> tuple[int, int]:
        right = np.interp(math.log10(x), (low, high), (LEFT, WIDTH - RIGHT))
        return round(float(right)), round(float(np.interp(math.log10(y), (bottom, top), (HEIGHT - BOTTOM, TOP))))

    _axes(canvas, place, sorted({pixels for pixels, _ in points}), (10**low, 10**high), (10**bottom, 10**top))
    for name, line in lines:
        corners = [place(*point) for point in line]
        cv2.polylines(canvas, [np.array(corners, np.int32)], False, _colour(name), 2, cv2.LINE_AA)
        for corner in corners:
            cv2.circle(canvas, corner, RADIUS, _colour(name), -1, cv2.LINE_AA)
            if "dilated" in name:  # hollow
                cv2.circle(canvas, corner, RADIUS - 2, (255, 255, 255), -1, cv2.LINE_AA)
    return canvas


def _axes(
    canvas: Canvas, place: Place, sizes: list[int], ends: tuple[float, float], values: tuple[float, float]
) -> None:
    for pixels in sizes:
        foot = place(pixels, values[0])
        cv2.line(canvas, foot, place(pixels, values[1]), PALE, 1)
        text = f"{pixels / 1e6:.2g} Mpx"
        put_text(canvas, text, foot[0] - text_width(text, TEXT) // 2, foot[1] + 18, TEXT)
    for decade in range(math.floor(math.log10(values[0])), math.ceil(math.log10(values[1]))):
        for tick in (10.0**decade, 2 * 10.0**decade, 5 * 10.0**decade):
            if values[0] <= tick <= values[1]:
                left = place(ends[0], tick)
                cv2.line(canvas, left, place(ends[1], tick), PALE, 1)
                text = f"{tick:,.6g}"
                put_text(canvas, text, left[0] - 8 - text_width(text, TEXT), left[1] + 4, TEXT)
    cv2.rectangle(canvas, place(ends[0], values[0]), place(ends[1], values[1]), INK, 1)


def _legend(width: int) -> Canvas:
    canvas, x = np.full((30, width, 3), 255, np.uint8), LEFT
    for name, colour in COLOURS.items():
        cv2.circle(canvas, (x, 8), RADIUS, colour, -1, cv2.LINE_AA)
        put_text(canvas, name, x + 12, 12, TEXT)
        x += 40 + text_width(name, TEXT)
    put_text(canvas, "hollow: dilated graph", x, 12, TEXT)
    return canvas


def _colour(name: str) -> tuple[int, int, int]:
    return COLOURS.get(name.partition(",")[0], INK)
