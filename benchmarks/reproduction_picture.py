"""Density curves: mIoU and thin classes over how many pixels are computed; strided networks as lines across."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.reproduction_table import Network, in_order
from runtime.drawing import INK, put_text, text_width
from splitmerge.files import new_file

__all__ = ["draw"]

Canvas = NDArray[np.uint8]
Colour = tuple[int, int, int]
Place = Callable[[float, float], tuple[int, int]]

WIDTH, HEIGHT = 640, 420
LEFT, RIGHT, TOP, BOTTOM = 60, 90, 44, 52
TEXT = 8
PALE = (228, 228, 228)
COLOURS: tuple[Colour, ...] = (
    (60, 60, 220),
    (40, 140, 230),
    (150, 110, 40),
    (170, 60, 170),
    (70, 150, 60),
    (90, 90, 90),
)


def draw(path: Path, networks: Sequence[Network]) -> None:
    """Write the picture, a .png: the mean over the seeds, and bars from the least to the greatest.

    Raises InputError where it cannot be written.
    """
    ordered = in_order(networks)
    panels = [
        _panel(ordered, "mean IoU of all classes in %", Network.miou),
        _panel(ordered, "mean IoU of the thin classes in %", Network.thin),
    ]
    with new_file(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", np.hstack(panels))[1].tobytes())


def _panel(networks: Sequence[Network], title: str, score: Callable[[Network, int], dict[int, float]]) -> Canvas:
    canvas: Canvas = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    strides = max((network.strides for network in networks), key=len)
    curves = [
        {stride: 100 * np.array(list(score(network, stride).values())) for stride in network.strides}
        for network in networks
    ]
    least, greatest = (fit(fit(values) for curve in curves for values in curve.values()) for fit in (min, max))
    bottom, top = math.floor(least / 5) * 5, max(math.ceil(greatest / 5), math.floor(least / 5) + 1) * 5

    def place(stride: float, value: float) -> tuple[int, int]:
        across = np.interp(-math.log2(stride), (-math.log2(max(strides[0], 2)), 0), (LEFT, WIDTH - RIGHT))
        return round(float(across)), round(float(np.interp(value, (bottom, top), (HEIGHT - BOTTOM, TOP))))

    _axes(canvas, place, strides, bottom, top, title)
    ends: list[int] = []
    for network, curve, colour in zip(networks, curves, _colours(len(networks)), strict=True):
        if len(curve) == 1:
            _across(canvas, place, strides, float(curve[1].mean()), colour)
        for one, other in pairwise(curve):
            start, end = (place(stride, float(curve[stride].mean())) for stride in (one, other))
            cv2.line(canvas, start, end, colour, 2, cv2.LINE_AA)
        for stride, values in curve.items():
            cv2.line(canvas, place(stride, float(values.min())), place(stride, float(values.max())), colour, 2)
            cv2.circle(canvas, place(stride, float(values.mean())), 4, colour, -1, cv2.LINE_AA)
        x, y = place(1, float(curve[1].mean()))
        while any(abs(y - other) < TEXT + 5 for other in ends):  # names that would lie on one another move down
            y += 1
        ends.append(y)
        put_text(canvas, network.model, x + 9, y + 4, TEXT, colour)
    return canvas


def _axes(canvas: Canvas, place: Place, strides: Sequence[int], bottom: float, top: float, title: str) -> None:
    for stride in strides:
        foot = place(stride, bottom)
        cv2.line(canvas, foot, place(stride, top), PALE, 1)
        put_text(canvas, str(stride), foot[0] - text_width(str(stride), TEXT) // 2, foot[1] + 18, TEXT)
    step = 5 if top - bottom <= 40 else 10
    for score in np.arange(math.ceil(bottom / step) * step, top + 1e-6, step):
        left, right = place(strides[0], float(score)), place(1, float(score))
        cv2.line(canvas, (LEFT, left[1]), right, PALE, 1)
        name = f"{score:g}"
        put_text(canvas, name, LEFT - 10 - text_width(name, TEXT), left[1] + 4, TEXT)
    cv2.rectangle(canvas, (LEFT, place(1, bottom)[1]), place(1, top), INK, 1)
    put_text(canvas, title, LEFT, TOP - 14, TEXT + 1)
    put_text(canvas, "stride: one pixel of every window of that size is computed", LEFT, HEIGHT - 12, TEXT)


def _across(canvas: Canvas, place: Place, strides: Sequence[int], value: float, colour: Colour) -> None:
    """A dashed line over all strides."""
    (left, y), (right, _) = place(strides[0], value), place(1, value)
    for x in range(min(left, LEFT), right, 12):
        cv2.line(canvas, (x, y), (min(x + 7, right), y), colour, 1, cv2.LINE_AA)


def _colours(count: int) -> list[Colour]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]
