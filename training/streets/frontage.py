"""What lines the street: buildings, houses behind gardens, walls, fences, parks."""

import numpy as np

from training.streets.camera import FAR, NEAR, Floats
from training.streets.classes import BUILDING, FENCE, WALL
from training.streets.greenery import paint_bush, paint_hedge, paint_tree
from training.streets.light import Colour
from training.streets.painter import Painter
from training.streets.world import Thing

__all__ = ["paint_fence", "paint_plot", "paint_railing"]

_FACADES: tuple[Colour, ...] = (
    (150, 190, 222), (90, 110, 175), (190, 205, 215), (120, 160, 200), (165, 165, 165), (80, 90, 130),
    (175, 190, 170), (130, 175, 225), (205, 195, 180), (110, 125, 145), (150, 150, 205), (215, 215, 212),
)  # fmt: skip
_ROOFS: tuple[Colour, ...] = ((60, 70, 140), (70, 68, 66), (60, 75, 110), (90, 95, 100))
_WALLS: tuple[Colour, ...] = ((140, 146, 150), (78, 92, 150), (120, 140, 160), (165, 170, 172))
_SHOPS: tuple[Colour, ...] = ((50, 50, 190), (70, 140, 60), (170, 90, 40), (40, 160, 225), (60, 60, 62))
_FENCES: tuple[Colour, ...] = ((60, 95, 60), (70, 70, 72), (215, 215, 215), (70, 105, 150), (150, 150, 150))


class _Plane:
    """A vertical plane along the street at `lat`: rectangles in (s, y)."""

    __slots__ = ("lat", "p", "s0", "s1")

    def __init__(self, p: Painter, lat: float, s0: float, s1: float) -> None:
        self.p, self.lat = p, lat
        self.s0, self.s1 = max(s0, p.camera.s + NEAR), s1

    def rects(self, boxes: Floats) -> Floats:
        """(s0, s1, y0, y1) `[N,4]` to corners `[N,4,3]`."""
        out = np.empty((len(boxes), 4, 3))
        out[:, :, 0] = self.lat
        out[:, :, 2] = np.maximum(boxes[:, [0, 1, 1, 0]], self.s0)
        out[:, :, 1] = boxes[:, [2, 2, 3, 3]]
        return out

    def paint(self, boxes: Floats, colour: Colour, label: int | None) -> None:
        """Rectangles that do not overlap; those behind the camera are left out."""
        boxes = boxes[boxes[:, 1] > self.s0]
        if len(boxes):
            self.p.fill_all(list(self.p.camera.fixed(self.rects(boxes))), colour, label)


def paint_plot(p: Painter, thing: Thing) -> None:
    """Paint one plot, far parts first."""
    if thing.s + thing.size < p.camera.s + 2 * NEAR or thing.s > p.camera.s + FAR:
        return
    side = 1 if thing.lat > 0 else -1
    looks = thing.looks
    if thing.kind == "building":
        _paint_building(p, thing.lat, side, thing.s, thing.size, 8.0 + 13 * looks[0] * looks[0], looks)
    elif thing.kind == "house":
        garden = 3.0 + 2.5 * looks[9]
        inset = 1.0 + 1.5 * looks[8]
        _paint_building(
            p, thing.lat + side * garden, side, thing.s + inset, thing.size - 2 * inset, 3.2 + 3.2 * looks[0],
            looks, pitched=True,
        )  # fmt: skip
        for k in range(2):
            s = thing.s + thing.size * (0.8 - 0.6 * k)
            paint_bush(p, thing.lat + side * 1.6, s, 0.7 + 0.6 * looks[k + 3], looks[k + 5])
        _paint_edge(p, thing, side)
    elif thing.kind == "wall":
        _paint_lot(p, thing, side)
        _paint_wall(p, thing.lat, side, thing.s, thing.size, 1.7 + 1.8 * looks[0], looks)
    elif thing.kind == "fence":
        _paint_lot(p, thing, side)
        paint_fence(p, thing.lat, thing.s, thing.size, 1.2 + 1.1 * looks[0], looks)
    else:
        for k in range(3):
            s = thing.s + thing.size * (0.85 - 0.35 * k)
            reach = 2 + 9 * looks[k]
            paint_tree(p, thing.lat + side * reach, s, 5 + 5 * looks[k + 3], looks[k:] + looks[:k])
        paint_bush(p, thing.lat + side * 2.0, thing.s + 1.0, 0.5 + 0.7 * looks[6], looks[7])


def _paint_lot(p: Painter, thing: Thing, side: int) -> None:
    """What shows over a wall or through a fence: a building further back, trees, bushes."""
    looks = thing.looks
    if looks[5] < 0.5:
        _paint_building(
            p, thing.lat + side * (5 + 5 * looks[6]), side, thing.s + 1, thing.size - 2, 5 + 6 * looks[4],
            looks[3:] + looks[:3], pitched=looks[7] < 0.5,
        )  # fmt: skip
    for k in range(2):
        s = thing.s + thing.size * (0.75 - 0.5 * k)
        paint_tree(p, thing.lat + side * (2.5 + 2 * looks[k]), s, 4.5 + 4 * looks[k + 2], looks[k + 1 :] + looks)


def _paint_edge(p: Painter, thing: Thing, side: int) -> None:
    """A front garden's border."""
    looks = thing.looks
    if looks[4] < 0.45:
        paint_fence(p, thing.lat, thing.s, thing.size, 0.9 + 0.5 * looks[5], looks[2:] + looks)
    elif looks[4] < 0.72:
        _paint_wall(p, thing.lat, side, thing.s, thing.size, 0.8 + 0.5 * looks[5], looks[2:] + looks)
    else:
        paint_hedge(p, thing.lat, thing.s, thing.size, 1.0 + 0.7 * looks[5], looks[6])


def _paint_building(
    p: Painter,
    lat: float,
    side: int,
    s: float,
    length: float,
    height: float,
    looks: tuple[float, ...],
    pitched: bool = False,
) -> None:
    """A block: the gable that faces the camera, the facade along the street, windows, shop or door, roof."""
    camera, light = p.camera, p.light
    z = max(s - camera.s, 1.0)
    if s + length < camera.s + 2 * NEAR:
        return
    away = max(z + 0.3 * length, 2.0)
    base = _FACADES[int(looks[1] * len(_FACADES))]
    roof = _ROOFS[int(looks[2] * len(_ROOFS))]
    front = light.facing(-side, 0, 0)
    gable = light.facing(0, 0, -1) * 0.94
    deep = 9.0
    rise = 2.0 + 2.0 * looks[3] if pitched else 0.0
    s1 = s + length
    if s > camera.s + NEAR:
        corners = [(lat, 0, s), (lat + side * deep, 0, s), (lat + side * deep, height, s)]
        corners += [(lat + side * deep / 2, height + rise, s)] if rise else []
        corners += [(lat, height, s)]
        p.quad(np.array(corners), light.paint(base, z, gable), BUILDING)
        if camera.focal / z > 4:
            _paint_gable_windows(p, lat, side, s, height, looks, light.paint((88, 74, 62), z, gable * 0.9))
    plane = _Plane(p, lat, s, s1)
    if rise:
        near = plane.s0
        slope = np.array(
            [(lat - side * 0.3, height - 0.1, near), (lat - side * 0.3, height - 0.1, s1),
             (lat + side * deep / 2, height + rise, s1), (lat + side * deep / 2, height + rise, near)]
        )  # fmt: skip
        if height < camera.up + rise * 12:
            p.quad(slope, light.paint(roof, away, light.facing(-0.6 * side, 0.8, 0)), BUILDING)
    plane.paint(np.array([(s, s1, 0, height)]), light.paint(base, away, front), BUILDING)
    _paint_facade(p, plane, s, s1, height, away, front, looks, base)
    if not rise:
        trim = light.paint((roof[0] + 60, roof[1] + 60, roof[2] + 50), away, front)
        plane.paint(np.array([(s, s1, height - 0.5, height)]), trim, None)


def _paint_gable_windows(
    p: Painter, lat: float, side: int, s: float, height: float, looks: tuple[float, ...], colour: Colour
) -> None:
    floors = max(1, int(height / 3.2))
    y = 1.2 + 3.2 * np.repeat(np.arange(floors), 2)
    x = lat + side * np.tile([2.2, 5.8], floors)
    quads = np.empty((2 * floors, 4, 3))
    quads[:, :, 2] = s
    quads[:, :, 0] = x[:, None] + side * np.array([0, 1.2, 1.2, 0])
    quads[:, :, 1] = np.minimum(y[:, None] + np.array([0, 0, 1.4, 1.4]), height - 0.3)
    if looks[7] > 0.3:
        p.fill_all(list(p.camera.fixed(quads)), colour, None)


def _paint_facade(
    p: Painter,
    plane: _Plane,
    s0: float,
    s1: float,
    height: float,
    away: float,
    shade: float,
    looks: tuple[float, ...],
    base: Colour,
) -> None:
    """Windows in rows with frames, some lit; a ground floor of shop windows or a door; floor bands."""
    light, length = p.light, s1 - s0
    pitch = 1.7 + 1.6 * looks[4]
    count = max(1, int((length - 0.8) / pitch))
    floor = 2.9 + 0.5 * looks[5]
    floors = max(1, int((height - 0.4) / floor))
    shop = looks[6] < 0.45 and floors > 1
    wide, tall = pitch * (0.42 + 0.35 * looks[7]), floor * (0.45 + 0.15 * looks[8])
    first = s0 + (length - count * pitch) / 2 + (pitch - wide) / 2
    column = first + pitch * np.arange(count)
    rows = np.arange(1 if shop else 0, floors)
    s = np.tile(column, len(rows))
    y = np.repeat(rows * floor + 0.32 * floor, count)
    boxes = np.stack([s, s + wide, y, np.minimum(y + tall, height - 0.55)], axis=1)
    detail = p.camera.focal / max(away, 1.0)
    if detail > 6 and looks[9] < 0.5:
        bands = np.array([(s0, s1, r * floor - 0.12, r * floor + 0.06) for r in range(1, floors)])
        if len(bands):
            plane.paint(bands, light.paint(_tone(base, 0.86), away, shade), None)
    if detail > 5:
        frame: Colour = (222, 224, 225) if looks[3] < 0.6 else _tone(base, 0.6)
        plane.paint(boxes + (-0.1, 0.1, -0.14, 0.08), light.paint(frame, away, shade), None)
    glass = light.paint((98, 84, 70), away, 0.35 + 0.6 * shade)
    plane.paint(boxes, glass, None)
    chosen = (np.arange(len(boxes)) * 7919 + int(looks[2] * 1000)) % 11
    if light.night > 0.25:
        plane.paint(boxes[chosen < 5], light.glow((110, 205, 250), away), None)
    else:
        plane.paint(boxes[chosen < 3] + (0, 0, 0.35 * tall, 0), light.paint((190, 185, 172), away, shade), None)
    if detail > 8:
        middle = 0.5 * (boxes[:, 0] + boxes[:, 1])
        bars = np.stack([middle - 0.03, middle + 0.03, boxes[:, 2], boxes[:, 3]], axis=1)
        plane.paint(bars, light.paint((205, 206, 206), away, shade), None)
    if shop:
        brand = _SHOPS[int(looks[0] * 97 % len(_SHOPS))]
        plane.paint(np.array([(s0 + 0.2, s1 - 0.2, 2.55, 3.05)]), light.paint(brand, away, shade), None)
        panes = np.array([(a, a + 2.2, 0.45, 2.4) for a in np.arange(s0 + 0.5, s1 - 2.4, 2.6)])
        if len(panes):
            inside = light.glow((120, 190, 225), away) if light.night > 0.25 else glass
            plane.paint(panes, inside, None)
            plane.paint(panes[:1] + (0, -1.1, -0.4, 0), light.paint((60, 62, 80), away, shade), None)
    else:
        at = float(column[int(looks[6] * count)])
        plane.paint(np.array([(at - 0.2, at + 1.1, 0, 2.35)]), light.paint(_tone(base, 0.8), away, shade), None)
        door = _SHOPS[int(looks[1] * 89 % len(_SHOPS))]
        plane.paint(np.array([(at, at + 0.9, 0, 2.15)]), light.paint(_tone(door, 0.7), away, shade), None)


def _tone(colour: Colour, gain: float) -> Colour:
    return (colour[0] * gain, colour[1] * gain, colour[2] * gain)


def _paint_wall(
    p: Painter, lat: float, side: int, s: float, length: float, height: float, looks: tuple[float, ...]
) -> None:
    """A garden or factory wall: courses of stone, a coping, perhaps a scrawl."""
    light = p.light
    base = _WALLS[int(looks[1] * len(_WALLS))]
    away = max(s - p.camera.s + 0.3 * length, 1.5)
    shade = light.facing(-side, 0, 0)
    plane = _Plane(p, lat, s, s + length)
    if s > p.camera.s + NEAR:
        end = np.array([(lat, 0, s), (lat + side * 0.4, 0, s), (lat + side * 0.4, height, s), (lat, height, s)])
        p.quad(end, light.paint(base, away, light.facing(0, 0, -1)), WALL)
    plane.paint(np.array([(s, s + length, 0, height)]), light.paint(base, away, shade), WALL)
    if p.camera.focal / away > 7:
        course = 0.24 + 0.2 * looks[2]
        joints = np.array([(s, s + length, y, y + 0.03) for y in np.arange(course, height - 0.2, course)])
        mortar = light.paint(_tone(base, 0.78), away, shade)
        plane.paint(joints, mortar, None)
        step = 2.1 * course
        n = int(length / step)
        heads = np.array(
            [(s + (k + 0.5 * (r % 2)) * step, s + (k + 0.5 * (r % 2)) * step + 0.03, r * course, (r + 1) * course)
             for r in range(int(height / course)) for k in range(n)]
        )  # fmt: skip
        if len(heads):
            plane.paint(heads, mortar, None)
        if looks[3] < 0.3:
            spray = _SHOPS[int(looks[4] * len(_SHOPS))]
            at = s + length * (0.2 + 0.4 * looks[5])
            scrawl = np.array([(at + 0.5 * k, at + 0.5 * k + 0.3, 0.5 + 0.1 * (k % 3), 1.2) for k in range(5)])
            plane.paint(scrawl, light.paint(spray, away, shade), None)
    plane.paint(np.array([(s, s + length, height - 0.12, height)]), light.paint(_tone(base, 1.15), away, shade), None)


def paint_fence(
    p: Painter, lat: float, s: float, length: float, height: float, looks: tuple[float, ...], y: float = 0.0
) -> None:
    """Posts, rails and pickets or wire mesh; what is behind shows, and is labelled, between them."""
    camera, light = p.camera, p.light
    near = max(s, camera.s + 1.2)
    end = s + length
    if end - near < 0.3:
        return
    away = max(near - camera.s + 0.25 * (end - near), 1.5)
    side = 1 if lat > camera.lat else -1
    colour = light.paint(_FENCES[int(looks[1] * len(_FENCES))], away, light.facing(-side, 0, 0))
    style = int(looks[2] * 3)
    step = (0.16, 0.3, 0.9)[style]
    # Bars closer than three pixels would fuse into a wall: leave some out with distance.
    u0, u1 = camera.spot(lat, 0, near)[0], camera.spot(lat, 0, end)[0]
    scale = camera.focal / away
    posts = np.arange(np.ceil(near / 2.4), np.floor(end / 2.4) + 1) * 2.4
    room = max(4.0, abs(u1 - u0) / 3.0)
    step = max(step, (end - near) / room)
    bars = np.arange(np.ceil(near / step), np.floor(end / step) + 1) * step
    paths = np.empty((len(bars), 2, 3))
    paths[:, :, 0] = lat
    paths[:, :, 2] = bars[:, None]
    paths[:, :, 1] = y + np.array([0.08, height])
    thin = max(1, int(0.035 * scale))
    if style == 2:
        cross = np.empty((2 * len(bars), 2, 3))
        cross[:, :, 0] = lat
        cross[: len(bars), :, 2] = np.minimum(bars[:, None] + np.array([0, height * 0.6]), end)
        cross[len(bars) :, :, 2] = np.minimum(bars[:, None] + np.array([height * 0.6, 0]), end)
        cross[:, :, 1] = y + np.array([0.08, height])
        p.lines(list(camera.fixed(cross)), colour, FENCE, 1)
    else:
        p.lines(list(camera.fixed(paths)), colour, FENCE, thin)
    rails = np.empty((2, 2, 3))
    rails[:, :, 0] = lat
    rails[:, :, 2] = (near, end)
    rails[:, :, 1] = y + np.array([[0.15], [height - 0.06]])
    p.lines(list(camera.fixed(rails)), colour, FENCE, max(1, int(0.05 * scale)))
    for at in posts:
        u, v, here = camera.spot(lat, y, at)
        p.bar(u, v, u, v - (height + 0.08) * here, 0.09 * here, colour, FENCE)


def paint_railing(p: Painter, thing: Thing) -> None:
    """A railing between pavement and road."""
    paint_fence(p, thing.lat, thing.s, thing.size, 1.0, (0.0, thing.looks[1], 0.3 * thing.looks[2]))
