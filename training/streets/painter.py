"""The canvas: blue, green, red and label in one array, so that picture and labels cannot disagree."""

from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from training.streets.camera import SHIFT, Camera, Floats, Ints, fixed_from_pixels
from training.streets.light import Colour, Light

__all__ = ["Bytes", "Painter"]

Bytes = npt.NDArray[np.uint8]

_ONE = 1 << SHIFT
_ANGLES = np.arange(14) * (2 * np.pi / 14)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


class Painter:
    """Paints hard-edged polygons on `canvas`, uint8 `[H,W,4]`: every touched pixel takes colour and id at once."""

    __slots__ = ("camera", "canvas", "light")

    def __init__(self, camera: Camera, light: Light, canvas: Bytes) -> None:
        self.camera = camera
        self.light = light
        self.canvas = canvas

    def fill(self, polygon: Ints, colour: Colour, label: int) -> None:
        """One polygon of fixed-point pixels `[P,2]`."""
        cv2.fillPoly(self.canvas, [polygon], (*colour, label), cv2.LINE_8, SHIFT)

    def fill_all(self, polygons: Ints, colour: Colour, label: int) -> None:
        """Polygons `[N,P,2]` that do not overlap, in one call."""
        cv2.fillPoly(self.canvas, cast(Sequence[Ints], polygons), (*colour, label), cv2.LINE_8, SHIFT)

    def lines(self, paths: Ints, colour: Colour, label: int, thickness: int = 1, closed: bool = False) -> None:
        """Open or closed paths `[N,P,2]` of fixed-point pixels, `thickness` whole pixels wide."""
        cv2.polylines(self.canvas, cast(Sequence[Ints], paths), closed, (*colour, label), thickness, cv2.LINE_8, SHIFT)

    def bar(self, u0: float, v0: float, u1: float, v1: float, width: float, colour: Colour, label: int) -> None:
        """A straight bar between two pixels, `width` pixels wide and never thinner than one.

        OpenCV fills a polygon's outline too, which widens it by a pixel; that is taken off here.
        """
        if width < 1.5:
            start, end = (round(u0 * _ONE), round(v0 * _ONE)), (round(u1 * _ONE), round(v1 * _ONE))
            cv2.line(self.canvas, start, end, (*colour, label), 1, cv2.LINE_8, SHIFT)
            return
        du, dv = u1 - u0, v1 - v0
        k = 0.5 * (width - 1.0) * _ONE / ((du * du + dv * dv) ** 0.5 or 1.0)
        nu, nv = -dv * k, du * k
        a, b, c, d = u0 * _ONE, v0 * _ONE, u1 * _ONE, v1 * _ONE
        corners = [(a + nu, b + nv), (c + nu, d + nv), (c - nu, d - nv), (a - nu, b - nv)]
        self.fill(np.array(corners).astype(np.int32), colour, label)

    def disc(self, u: float, v: float, ru: float, rv: float, colour: Colour, label: int) -> None:
        """An ellipse with half axes in pixels."""
        self.fill(fixed_from_pixels(_CIRCLE * (ru, rv) + (u, v)), colour, label)

    def box(self, u0: float, v0: float, u1: float, v1: float, colour: Colour, label: int) -> None:
        """An upright rectangle between two corners in pixels."""
        corners = np.array([(u0, v0), (u1, v0), (u1, v1), (u0, v1)])
        self.fill(fixed_from_pixels(corners), colour, label)

    def quad(self, points: Floats, colour: Colour, label: int) -> None:
        """A polygon of street coordinates `[P,3]`."""
        self.fill(self.camera.fixed(points), colour, label)

    def stamp(self, sprite: Bytes, table: Bytes, u: float, v: float, ru: float, rv: float) -> None:
        """A sprite (uint8 `[S,S,2]`: shade, cover) centred on a pixel; `table` `[256,4]` is what a shade paints."""
        height, width = self.canvas.shape[:2]
        u0, u1 = max(0, int(u - ru)), min(width, int(u + ru) + 1)
        v0, v1 = max(0, int(v - rv)), min(height, int(v + rv) + 1)
        if u1 <= u0 or v1 <= v0 or ru < 0.7 or rv < 0.7:
            return
        side = sprite.shape[0]
        ku, kv = side / (2 * ru), side / (2 * rv)
        warp = np.array([[ku, 0, (u0 - u + ru) * ku], [0, kv, (v0 - v + rv) * kv]])
        patch = cv2.warpAffine(sprite, warp, (u1 - u0, v1 - v0), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        cover = (cv2.extractChannel(patch, 1) > 127).view(np.uint8)
        leaves = cv2.LUT(cv2.cvtColor(cv2.extractChannel(patch, 0), cv2.COLOR_GRAY2BGRA), table[None])
        # The alpha that cvtColor adds is 255 everywhere: entry 255 of the table's last column is the label.
        cv2.copyTo(leaves, cover, self.canvas[v0:v1, u0:u1])
