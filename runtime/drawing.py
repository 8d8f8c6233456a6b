"""Painting for overlays and pictures: labels blended over a frame, text, and a legend of the classes. All BGR uint8."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from splitmerge.labels import LabelClass

__all__ = ["Overlay", "legend", "marked", "put_text", "text_width"]

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

INK: Colour = (40, 40, 40)
PAPER: Colour = (255, 255, 255)
MARK: Colour = (40, 40, 230)
EDGE_LIGHT = 70
"""How much brighter, of 255, the pixels are painted where two classes meet."""


class Overlay:
    """Blends label maps over frames of one size, in buffers that are made once.

    `table_bgr` is uint8 [256,3]; `alpha` the labels' share of the mixture, 0 (frame only) to 1 (labels only).
    """

    def __init__(self, height: int, width: int, table_bgr: Image, alpha: float) -> None:
        self._table = np.ascontiguousarray(table_bgr.reshape(256, 1, 3))
        self._alpha = alpha
        self._paint = np.empty((height, width, 3), np.uint8)
        self._light = np.full_like(self._paint, EDGE_LIGHT)
        self._highest = np.empty((height, width), np.uint8)
        self._cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))

    def draw(self, frame_bgr: Image, labels: Image, out: Image) -> None:
        """Write the mixture into `out` [H,W,3], which may be part of a larger image."""
        cv2.applyColorMap(labels, self._table, self._paint)
        # A thin light line where classes meet keeps a pole apart from a building of nearly the same gray.
        cv2.dilate(labels, self._cross, self._highest)
        edges = cv2.compare(labels, self._highest, cv2.CMP_NE)
        cv2.add(self._paint, self._light, self._paint, edges)
        cv2.addWeighted(frame_bgr, 1 - self._alpha, self._paint, self._alpha, 0, dst=out)


def marked(frame_bgr: Image, where: NDArray[np.bool_], grown: bool = True) -> Image:
    """The frame in pale gray with some pixels in red: uint8 [H,W,3]. `grown` by a pixel, a lone one is seen as well."""
    gray = cv2.cvtColor(frame_bgr, cv2.COLOR_BGR2GRAY)
    gray = cv2.normalize(gray, np.empty_like(gray), 0, 255, cv2.NORM_MINMAX)  # a night scene stays visible
    canvas = cv2.cvtColor(cv2.addWeighted(gray, 0.35, np.full_like(gray, 255), 0.65, 0), cv2.COLOR_GRAY2BGR)
    mask = where.astype(np.uint8)
    canvas[(cv2.dilate(mask, np.ones((3, 3), np.uint8)) if grown else mask) > 0] = MARK
    return np.asarray(canvas, np.uint8)


def put_text(image: Image, text: str, x: int, baseline: int, height: int, colour: Colour = INK) -> None:
    """Write `text` with capital letters about `height` pixels tall, its first letter's foot at (x, baseline)."""
    cv2.putText(image, text, (x, baseline), cv2.FONT_HERSHEY_SIMPLEX, height / 20, colour, 1, cv2.LINE_AA)


def text_width(text: str, height: int) -> int:
    """Width in pixels of what `put_text` writes."""
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, height / 20, 1)
    return int(width)


def legend(
    classes: Sequence[LabelClass], width: int, height: int = 10, ink: Colour = INK, paper: Colour = PAPER
) -> Image:
    """A strip [h,width,3] with a swatch and the name of each class, in as many rows as they need.

    `height` is that of the capital letters in pixels; the strip's height follows from it and from the number of rows.
    """
    line, swatch, gap = 2 * height + 4, height + 2, height
    column = max(swatch + gap // 2 + text_width(entry.name, height) for entry in classes) + 2 * gap
    columns = max(1, min(len(classes), (width - gap) // column))
    rows = -(-len(classes) // columns)
    columns = -(-len(classes) // rows)  # as many in each row, rather than a last one of two
    pitch = (width - gap) // columns
    strip = np.empty((rows * line + height, width, 3), np.uint8)
    strip[:] = paper
    for index, entry in enumerate(classes):
        x, y = gap + index % columns * pitch, height // 2 + index // columns * line + (line - swatch) // 2
        cv2.rectangle(strip, (x, y), (x + swatch, y + swatch), entry.rgb[::-1], cv2.FILLED)
        put_text(strip, entry.name, x + swatch + gap // 2 + 1, y + swatch - 1, height, ink)
    return strip
