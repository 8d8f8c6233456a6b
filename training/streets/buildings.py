"""Houses and blocks: gable, facade with windows, shops and doors, balconies, roof."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.streets.camera import NEAR, Floats
from training.streets.classes import BUILDING
from training.streets.light import Colour, tone
from training.streets.painter import Painter
from training.streets.plane import Plane

__all__ = ["SHOPS", "paint_building"]

_FACADES: tuple[Colour, ...] = (
    (150, 190, 222), (90, 110, 175), (190, 205, 215), (120, 160, 200), (165, 165, 165), (80, 90, 130),
    (175, 190, 170), (130, 175, 225), (205, 195, 180), (110, 125, 145), (150, 150, 205), (215, 215, 212),
)  # fmt: skip
_ROOFS: tuple[Colour, ...] = ((60, 70, 140), (70, 68, 66), (60, 75, 110), (90, 95, 100))
SHOPS: tuple[Colour, ...] = ((50, 50, 190), (70, 140, 60), (170, 90, 40), (40, 160, 225), (60, 60, 62))
# Added to a rectangle (s0, s1, y0, y1): a window's frame around it; a door in a shop window's place.
_FRAME = np.array((-0.1, 0.1, -0.14, 0.08))
_DOOR = np.array((0, -1.1, -0.4, 0))
_DEEP = 9.0  # metres from the street to the back


@dataclass(frozen=True, slots=True)
class _Block:
    """A building's place and measures in metres; `away` is the distance its haze is reckoned from."""

    lat: float
    side: int
    s0: float
    s1: float
    height: float
    rise: float  # of a pitched roof, or 0
    away: float
    shade: float
    base: Colour
    looks: tuple[float, ...]


def paint_building(
    p: Painter,
    lat: float,
    side: int,
    s: float,
    length: float,
    height: float,
    looks: tuple[float, ...],
    pitched: bool = False,
) -> None:
    """A building from `s` to `s + length` whose front stands at `lat`; `side` is -1 left, 1 right of the street."""
    camera, light = p.camera, p.light
    if s + length < camera.s + 2 * NEAR:
        return
    away = max(max(s - camera.s, 1.0) + 0.3 * length, 2.0)
    base = _FACADES[int(looks[1] * len(_FACADES))]
    rise = 2.0 + 2.0 * looks[3] if pitched else 0.0
    shade = light.facing(-side, 0, 0)
    block = _Block(lat, side, s, s + length, height, rise, away, shade, base, looks)
    if s > camera.s + NEAR:
        _paint_gable(p, block)
    if rise and height < camera.up + rise * 12:
        _paint_slope(p, block)
    plane = Plane(p, lat, BUILDING)
    plane.one(s, s + length, 0, height, light.paint(base, away, shade))
    _add_facade(p, plane, block)
    plane.paint()


def _paint_gable(p: Painter, b: _Block) -> None:
    """The end wall that faces the camera, and its windows."""
    camera, light = p.camera, p.light
    z = max(b.s0 - camera.s, 1.0)
    shade = light.facing(0, 0, -1) * 0.94
    back = b.lat + b.side * _DEEP
    corners = [(b.lat, 0, b.s0), (back, 0, b.s0), (back, b.height, b.s0)]
    corners += [(b.lat + b.side * _DEEP / 2, b.height + b.rise, b.s0)] if b.rise else []
    corners += [(b.lat, b.height, b.s0)]
    p.quad(np.array(corners), light.paint(b.base, z, shade), BUILDING)
    if camera.focal / z < 4 or b.looks[7] < 0.3:
        return
    floors = max(1, int(b.height / 3.2))
    y = 1.2 + 3.2 * np.repeat(np.arange(floors), 2)
    x = b.lat + b.side * np.tile([2.2, 5.8], floors)
    quads = np.empty((2 * floors, 4, 3))
    quads[:, :, 2] = b.s0
    quads[:, :, 0] = x[:, None] + b.side * np.array([0, 1.2, 1.2, 0])
    quads[:, :, 1] = np.minimum(y[:, None] + np.array([0, 0, 1.4, 1.4]), b.height - 0.3)
    p.fill_all(camera.fixed(quads), light.paint((88, 74, 62), z, shade * 0.9), BUILDING)


def _paint_slope(p: Painter, b: _Block) -> None:
    """The side of a pitched roof that the street sees, with a chimney on it."""
    near = max(b.s0, p.camera.s + NEAR)
    eaves, ridge = b.lat - b.side * 0.3, b.lat + b.side * _DEEP / 2
    top = b.height + b.rise
    slope = [(eaves, b.height - 0.1, near), (eaves, b.height - 0.1, b.s1), (ridge, top, b.s1), (ridge, top, near)]
    roof = _ROOFS[int(b.looks[2] * len(_ROOFS))]
    lit = p.light.facing(-0.6 * b.side, 0.8, 0)
    at = b.s0 + (0.25 + 0.5 * b.looks[5]) * (b.s1 - b.s0)
    if at > near + 1:
        chimney = p.light.paint((70, 85, 130), b.away, p.light.facing(0, 0, -1))
        x0, x1 = ridge - b.side * 0.4, ridge + b.side * 0.3
        stack = [(x0, top - 0.6, at), (x1, top - 0.6, at), (x1, top + 0.8, at), (x0, top + 0.8, at)]
        p.quad(np.array(stack), chimney, BUILDING)
    p.quad(np.array(slope), p.light.paint(roof, b.away, lit), BUILDING)


def _add_facade(p: Painter, plane: Plane, b: _Block) -> None:
    """Windows in rows with frames, some lit; shop or door below; bands, balconies, cornice."""
    light, looks, length = p.light, b.looks, b.s1 - b.s0
    pitch = 1.7 + 1.6 * looks[4]
    count = max(1, int((length - 0.8) / pitch))
    floor = 2.9 + 0.5 * looks[5]
    floors = max(1, int((b.height - 0.4) / floor))
    shop = looks[6] < 0.45 and floors > 1
    wide, tall = pitch * (0.42 + 0.35 * looks[7]), floor * (0.45 + 0.15 * looks[8])
    column = b.s0 + (length - count * pitch) / 2 + (pitch - wide) / 2 + pitch * np.arange(count)
    rows = np.arange(1 if shop else 0, floors)
    s, y = np.tile(column, len(rows)), np.repeat(rows * floor + 0.32 * floor, count)
    boxes = np.stack([s, s + wide, y, np.minimum(y + tall, b.height - 0.55)], axis=1)
    detail = p.camera.focal / b.away

    def paint(base: Colour) -> Colour:
        return light.paint(base, b.away, b.shade)

    glass = light.paint((98, 84, 70), b.away, 0.35 + 0.6 * b.shade)
    if detail > 5:
        plane.one(b.s0, b.s1, 0, 0.5, paint(tone(b.base, 0.72)))
        if looks[9] < 0.5 and floors > 1:
            at = np.arange(1, floors) * floor
            bands = np.stack([0 * at + b.s0, 0 * at + b.s1, at - 0.12, at + 0.06], axis=1)
            plane.add(bands, paint(tone(b.base, 0.86)))
        frame: Colour = (222, 224, 225) if looks[3] < 0.6 else tone(b.base, 0.6)
        plane.add(boxes + _FRAME, paint(frame))
    plane.add(boxes, glass)
    chosen = (np.arange(len(boxes)) * 7919 + int(looks[2] * 1000)) % 11
    if light.night > 0.25:
        plane.add(boxes[chosen < 5], light.glow((110, 205, 250), b.away))
    elif detail > 4:
        plane.add(boxes[chosen < 3] + (0, 0, 0.35 * tall, 0), paint((190, 185, 172)))
    if detail > 9:
        middle = 0.5 * (boxes[:, 0] + boxes[:, 1])
        plane.add(np.stack([middle - 0.03, middle + 0.03, boxes[:, 2], boxes[:, 3]], axis=1), paint((205, 206, 206)))
        if looks[0] > 0.45 and not b.rise and count > 2:
            _add_balconies(plane, boxes, count, paint((92, 92, 94)), paint(tone(b.base, 1.12)))
    if shop:
        _add_shop(plane, b, glass if light.night < 0.25 else light.glow((120, 190, 225), b.away), paint)
    else:
        at_s = float(column[int(looks[6] * count)])
        plane.one(at_s - 0.2, at_s + 1.1, 0, 2.35, paint(tone(b.base, 0.8)))
        plane.one(at_s, at_s + 0.9, 0, 2.15, paint(tone(SHOPS[int(looks[1] * 89 % len(SHOPS))], 0.7)))
    if not b.rise:
        roof = _ROOFS[int(looks[2] * len(_ROOFS))]
        plane.one(b.s0, b.s1, b.height - 0.5, b.height, paint((roof[0] + 60, roof[1] + 60, roof[2] + 50)))


def _add_balconies(plane: Plane, boxes: Floats, count: int, rail: Colour, slab: Colour) -> None:
    """Balconies at every third column above the first row."""
    chosen = boxes[count:][np.arange(len(boxes) - count) % count % 3 == 1]
    plane.add(np.stack([chosen[:, 0] - 0.3, chosen[:, 1] + 0.3, chosen[:, 2] - 0.1, chosen[:, 2] + 0.85], 1), rail)
    plane.add(np.stack([chosen[:, 0] - 0.4, chosen[:, 1] + 0.4, chosen[:, 2] - 0.25, chosen[:, 2] - 0.1], 1), slab)


def _add_shop(plane: Plane, b: _Block, inside: Colour, paint: Callable[[Colour], Colour]) -> None:
    """Shop windows between pillars under a name board, a door in the first, perhaps a striped awning."""
    brand = SHOPS[int(b.looks[0] * 97 % len(SHOPS))]
    plane.one(b.s0, b.s1, 0, 2.5, paint(tone(b.base, 0.62)))
    plane.one(b.s0 + 0.2, b.s1 - 0.2, 2.55, 3.05, paint(brand))
    first = np.arange(b.s0 + 0.5, b.s1 - 2.4, 2.6)
    if not len(first):
        return
    panes = np.stack([first, first + 2.2, 0 * first + 0.45, 0 * first + 2.4], axis=1)
    plane.add(panes, inside)
    plane.add(panes[:1] + _DOOR, paint((60, 62, 80)))
    if b.looks[8] > 0.55:
        stripes = np.arange(b.s0 + 0.3, b.s1 - 0.5, 0.8)
        cloth = np.stack([stripes, stripes + 0.4, 0 * stripes + 2.05, 0 * stripes + 2.55], axis=1)
        plane.one(b.s0 + 0.3, b.s1 - 0.3, 2.05, 2.55, paint((225, 228, 230)))
        plane.add(cloth, paint(brand))
