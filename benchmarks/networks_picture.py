"""Accuracy over cost, a point per network: mIoU and thin classes over multiply-adds and, where measured, over time."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.drawing import INK, put_text, text_width
from splitmerge.files import new_file

__all__ = ["draw"]

Canvas = NDArray[np.uint8]
Box = tuple[int, int, int, int]

WIDTH, HEIGHT = 640, 420
LEFT, RIGHT, TOP, BOTTOM = 60, 24, 44, 34
TEXT, RADIUS = 8, 5
PALE = (228, 228, 228)
FAMILIES = (
    (("smp",), "Split-Merge Pooling", (60, 60, 220)),
    (("fcn",), "FCN", (150, 110, 40)),
    (("dilatedfcn", "deeplabv3", "aspp", "pspnet", "encnet"), "dilated", (40, 140, 230)),
    (("fastfcn",), "FastFCN", (170, 60, 170)),
    (("ldn", "lrn", "dpn", "ddn", "lddn", "dn"), "ladders", (70, 150, 60)),
)
"""Beginnings of the names, what they are together, and their colour."""
SCORES = (("miou", "mIoU in %"), ("thin", "mean IoU of the thin classes in %"))


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the picture, a .png. Raises InputError where it cannot be written."""
    size = next(iter(rows[0]["multiply_adds"]))
    costs: list[tuple[str, Callable[[dict[str, Any]], float | None]]] = [
        (f"multiply-adds of a frame of {size}, billions", lambda row: row["multiply_adds"][size] / 1e9)
    ]
    if any("measured" in row for row in rows):
        costs.append((f"ms for a frame of {size} in ONNX Runtime", _milliseconds))
    lines = [
        np.hstack([_panel(rows, cost, score, f"{title} over {what}") for what, cost in costs])
        for score, title in SCORES
    ]
    with new_file(path) as temporary:
        picture = np.vstack([*lines, _legend(WIDTH * len(costs))])
        temporary.write_bytes(cv2.imencode(".png", picture)[1].tobytes())


def _milliseconds(row: dict[str, Any]) -> float | None:
    """Streamed where a network can be, which is how it is run by default."""
    measured = row.get("measured", {})
    mode = measured.get("streamed") or measured.get("whole")
    return float(mode["median_ms"]) if mode else None


def _panel(
    rows: list[dict[str, Any]], cost: Callable[[dict[str, Any]], float | None], score: str, title: str
) -> Canvas:
    canvas = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    known = [(row["model"], value, 100 * row[score]) for row in rows if (value := cost(row)) is not None]
    low, high = (fit(math.log10(value) for _, value, _ in known) for fit in (min, max))
    low, high = low - 0.1 * (high - low) - 0.05, high + 0.1 * (high - low) + 0.05
    bottom, top = (fit(value for _, _, value in known) for fit in (min, max))
    bottom, top = bottom - 0.2 * (top - bottom) - 0.1, top + 0.1 * (top - bottom) + 0.1

    def place(x: float, y: float) -> tuple[int, int]:
        across = np.interp(math.log10(x), (low, high), (LEFT, WIDTH - RIGHT))
        return round(float(across)), round(float(np.interp(y, (bottom, top), (HEIGHT - BOTTOM, TOP))))

    _axes(canvas, place, (10**low, 10**high), (bottom, top), title)
    points = [(name, place(x, y)) for name, x, y in known]
    taken = [(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for _, (x, y) in points]
    for name, point in points:
        cv2.circle(canvas, point, RADIUS, _colour(name), -1, cv2.LINE_AA)
    for name, point in points:
        taken.append(_label(canvas, name, point, taken))
    return canvas


def _axes(
    canvas: Canvas,
    place: Callable[[float, float], tuple[int, int]],
    ends: tuple[float, float],
    scores: tuple[float, float],
    title: str,
) -> None:
    bottom, top = scores
    for decade in range(math.floor(math.log10(ends[0])), math.ceil(math.log10(ends[1]))):
        for tick in (10**decade, 2 * 10**decade, 5 * 10**decade):
            if ends[0] <= tick <= ends[1]:
                foot = place(tick, bottom)
                cv2.line(canvas, foot, place(tick, top), PALE, 1)
                _centred(canvas, f"{tick:g}", foot[0], foot[1] + 18)
    step = next(step for step in (1, 2, 5, 10, 20) if (top - bottom) / step <= 7 or step == 20)
    for score in range(max(0, math.ceil(bottom / step)) * step, math.ceil(top), step):
        left, right = place(ends[0], score), place(ends[1], score)
        cv2.line(canvas, left, right, PALE, 1)
        put_text(canvas, str(score), left[0] - 10 - text_width(str(score), TEXT), left[1] + 4, TEXT)
    cv2.rectangle(canvas, place(ends[0], bottom), place(ends[1], top), INK, 1)
    put_text(canvas, title, LEFT, TOP - 14, TEXT + 1)


def _label(canvas: Canvas, name: str, point: tuple[int, int], taken: list[Box]) -> Box:
    """Write the name at the nearest free place; a line leads to one that is further away."""
    width, height = text_width(name, TEXT), TEXT + 4
    x, y = point
    beside = [(x + RADIUS + 3, y + 4), (x - RADIUS - 3 - width, y + 4)]
    around = [
        (x + dx, y + dy + 4)
        for distance in range(14, 120, 6)
        for dy in (-distance, distance)
        for dx in (8, -width - 8, -width // 2)
    ]
    for left, baseline in (*beside, *around):
        box = (left - 2, baseline - height, left + width + 2, baseline + 3)
        inside = box[0] > LEFT and box[2] < WIDTH - RIGHT and box[1] > TOP and box[3] < HEIGHT - BOTTOM
        if inside and not any(_overlap(box, other) for other in taken):
            break
    if (left, baseline) not in beside:
        cv2.line(canvas, point, (min(max(x, box[0]), box[2]), box[3] if baseline < y else box[1]), _colour(name), 1)
    put_text(canvas, name, left, baseline, TEXT, _colour(name))
    return box


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _legend(width: int) -> Canvas:
    canvas, x = np.full((30, width, 3), 255, np.uint8), LEFT
    for _, name, colour in FAMILIES:
        cv2.circle(canvas, (x, 8), RADIUS, colour, -1, cv2.LINE_AA)
        put_text(canvas, name, x + 12, 12, TEXT)
        x += 40 + text_width(name, TEXT)
    return canvas


def _colour(name: str) -> tuple[int, int, int]:
    for beginnings, _, colour in FAMILIES:
        if name.startswith(beginnings):
            return colour
    return INK


def _centred(canvas: Canvas, text: str, x: int, baseline: int) -> None:
    put_text(canvas, text, x - text_width(text, TEXT) // 2, baseline, TEXT)
