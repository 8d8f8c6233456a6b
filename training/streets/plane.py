"""A vertical plane along the street, painted in layers of rectangles."""

import numpy as np

from training.streets.camera import NEAR, Floats
from training.streets.light import Colour
from training.streets.painter import Painter

__all__ = ["Plane"]


class Plane:
    """Collects rectangles (s0, s1, y0, y1) in metres, projects them all at once, paints them in order."""

    __slots__ = ("_boxes", "_colours", "_label", "_lat", "_near", "_p")

    def __init__(self, p: Painter, lat: float, label: int) -> None:
        self._p, self._lat, self._label = p, lat, label
        self._near = p.camera.s + NEAR
        self._boxes: list[Floats] = []
        self._colours: list[Colour] = []

    def add(self, boxes: Floats, colour: Colour) -> None:
        """A layer `[N,4]` of rectangles that do not overlap one another."""
        if len(boxes):
            self._boxes.append(boxes)
            self._colours.append(colour)

    def one(self, s0: float, s1: float, y0: float, y1: float, colour: Colour) -> None:
        """A layer of one rectangle."""
        self.add(np.array([(s0, s1, y0, y1)]), colour)

    def paint(self) -> None:
        """Paint the layers; what lies behind the camera is left out."""
        boxes = np.concatenate(self._boxes)
        corners = np.empty((len(boxes), 4, 3))
        corners[:, :, 0] = self._lat
        corners[:, :, 1] = boxes[:, [2, 2, 3, 3]]
        corners[:, :, 2] = boxes[:, [0, 1, 1, 0]]
        fixed = self._p.camera.fixed(corners)
        ahead = boxes[:, 1] > self._near
        at = 0
        for layer, colour in zip(self._boxes, self._colours, strict=True):
            part = fixed[at : at + len(layer)]
            if boxes[at, 0] <= self._near or boxes[at + len(layer) - 1, 0] <= self._near:
                part = part[ahead[at : at + len(layer)]]
            if len(part):
                self._p.fill_all(part, colour, self._label)
            at += len(layer)
