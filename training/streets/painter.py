"""The two canvases, picture and labels, always painted from the same fixed-point polygons."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from training.streets.camera import SHIFT, Camera, Floats, Ints, fixed_from_pixels
from training.streets.light import Colour, Light

__all__ = ["Bytes", "Painter"]

Bytes = npt.NDArray[np.uint8]


class Painter:
    """Paints polygons on `image` (uint8 BGR `[H,W,3]`) and `labels` (uint8 train ids `[H,W]`).

    Every method that takes `label=None` paints a detail inside a thing that is already there.
    """

    __slots__ = ("camera", "image", "labels", "light")

    def __init__(self, camera: Camera, light: Light, image: Bytes, labels: Bytes) -> None:
        self.camera = camera
        self.light = light
        self.image = image
        self.labels = labels

    def fill(self, polygon: Ints, colour: Colour, label: int | None) -> None:
        """One polygon of fixed-point pixels `[P,2]`."""
        cv2.fillPoly(self.image, [polygon], colour, cv2.LINE_8, SHIFT)
        if label is not None:
            cv2.fillPoly(self.labels, [polygon], (label,), cv2.LINE_8, SHIFT)

    def fill_all(self, polygons: Sequence[Ints], colour: Colour, label: int | None) -> None:
        """Several polygons that do not overlap, in one call."""
        if len(polygons) == 0:
            return
        cv2.fillPoly(self.image, polygons, colour, cv2.LINE_8, SHIFT)
        if label is not None:
            cv2.fillPoly(self.labels, polygons, (label,), cv2.LINE_8, SHIFT)

    def lines(
        self,
        paths: Sequence[Ints],
        colour: Colour,
        label: int | None,
        thickness: int = 1,
        closed: bool = False,
    ) -> None:
        """Open or closed paths of fixed-point pixels, `thickness` whole pixels wide."""
        if len(paths) == 0:
            return
        cv2.polylines(self.image, paths, closed, colour, thickness, cv2.LINE_8, SHIFT)
        if label is not None:
            cv2.polylines(self.labels, paths, closed, (label,), thickness, cv2.LINE_8, SHIFT)

    def bar(self, u0: float, v0: float, u1: float, v1: float, width: float, colour: Colour, label: int) -> None:
        """A straight bar between two pixels, `width` pixels wide and never thinner than one.

        OpenCV fills a polygon's outline too, which widens it by a pixel; that is taken off here.
        """
        half = max(0.0, 0.5 * (width - 1.0))
        du, dv = u1 - u0, v1 - v0
        length = (du * du + dv * dv) ** 0.5 or 1.0
        nu, nv = -dv / length * half, du / length * half
        corners = np.array([(u0 + nu, v0 + nv), (u1 + nu, v1 + nv), (u1 - nu, v1 - nv), (u0 - nu, v0 - nv)])
        self.fill(fixed_from_pixels(corners), colour, label)

    def disc(self, u: float, v: float, ru: float, rv: float, colour: Colour, label: int | None) -> None:
        """An ellipse with half axes in pixels."""
        self.fill(fixed_from_pixels(_CIRCLE * (ru, rv) + (u, v)), colour, label)

    def box(self, u0: float, v0: float, u1: float, v1: float, colour: Colour, label: int | None) -> None:
        """An upright rectangle between two corners in pixels."""
        corners = np.array([(u0, v0), (u1, v0), (u1, v1), (u0, v1)])
        self.fill(fixed_from_pixels(corners), colour, label)

    def quad(self, points: Floats, colour: Colour, label: int | None) -> None:
        """A polygon of street coordinates `[P,3]`."""
        self.fill(self.camera.fixed(points), colour, label)

    def stamp(self, sprite: Bytes, lut: Bytes, u: float, v: float, ru: float, rv: float, label: int) -> None:
        """A sprite (uint8 `[S,S,2]`: shade, cover) centred on a pixel; `lut` `[256,3]` colours the shade."""
        height, width = self.labels.shape
        u0, u1 = max(0, int(u - ru)), min(width, int(u + ru) + 1)
        v0, v1 = max(0, int(v - rv)), min(height, int(v + rv) + 1)
        if u1 <= u0 or v1 <= v0 or ru < 0.7 or rv < 0.7:
            return
        side = sprite.shape[0]
        ku, kv = side / (2 * ru), side / (2 * rv)
        warp = np.array([[ku, 0, (u0 - u + ru) * ku], [0, kv, (v0 - v + rv) * kv]])
        patch = cv2.warpAffine(sprite, warp, (u1 - u0, v1 - v0), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        cover = cv2.compare(patch[..., 1], 127, cv2.CMP_GT)
        window = self.image[v0:v1, u0:u1]
        np.copyto(window, lut[patch[..., 0]], where=cover[..., None] > 0)
        self.labels[v0:v1, u0:u1][cover > 0] = label


_ANGLES = np.arange(14) * (2 * np.pi / 14)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
