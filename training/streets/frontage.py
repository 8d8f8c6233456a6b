"""What lines the street: buildings, houses behind gardens, walls, fences, parks."""

import numpy as np

from training.streets.buildings import SHOPS, paint_building
from training.streets.camera import FAR, NEAR
from training.streets.classes import FENCE, WALL
from training.streets.greenery import paint_bush, paint_hedge, paint_tree
from training.streets.light import Colour, tone
from training.streets.painter import Painter
from training.streets.plane import Plane
from training.streets.world import Thing

__all__ = ["paint_fence", "paint_plot", "paint_railing"]

_WALLS: tuple[Colour, ...] = ((140, 146, 150), (78, 92, 150), (120, 140, 160), (165, 170, 172))
_FENCES: tuple[Colour, ...] = ((60, 95, 60), (70, 70, 72), (215, 215, 215), (70, 105, 150), (150, 150, 150))


def paint_plot(p: Painter, thing: Thing) -> None:
    """Paint one plot, far parts first."""
    if thing.s + thing.size < p.camera.s + 2 * NEAR or thing.s > p.camera.s + FAR:
        return
    side = 1 if thing.lat > 0 else -1
    looks = thing.looks
    if thing.kind == "building":
        paint_building(p, thing.lat, side, thing.s, thing.size, 8.0 + 13 * looks[0] * looks[0], looks)
    elif thing.kind == "house":
        garden = 3.0 + 2.5 * looks[9]
        inset = 1.0 + 1.5 * looks[8]
        paint_building(
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
        paint_building(
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


def _paint_wall(
    p: Painter, lat: float, side: int, s: float, length: float, height: float, looks: tuple[float, ...]
) -> None:
    """A garden or factory wall: courses of stone, a coping, perhaps a scrawl."""
    light = p.light
    base = _WALLS[int(looks[1] * len(_WALLS))]
    away = max(s - p.camera.s + 0.3 * length, 1.5)
    shade = light.facing(-side, 0, 0)
    plane = Plane(p, lat, WALL)
    if s > p.camera.s + NEAR:
        end = np.array([(lat, 0, s), (lat + side * 0.4, 0, s), (lat + side * 0.4, height, s), (lat, height, s)])
        p.quad(end, light.paint(base, away, light.facing(0, 0, -1)), WALL)
    plane.add(np.array([(s, s + length, 0, height)]), light.paint(base, away, shade))
    if p.camera.focal / away > 7:
        course = 0.24 + 0.2 * looks[2]
        joints = np.array([(s, s + length, y, y + 0.03) for y in np.arange(course, height - 0.2, course)])
        mortar = light.paint(tone(base, 0.78), away, shade)
        plane.add(joints, mortar)
        step = 2.1 * course
        n = int(length / step)
        heads = np.array(
            [(s + (k + 0.5 * (r % 2)) * step, s + (k + 0.5 * (r % 2)) * step + 0.03, r * course, (r + 1) * course)
             for r in range(int(height / course)) for k in range(n)]
        )  # fmt: skip
        if len(heads):
            plane.add(heads, mortar)
        if looks[3] < 0.3:
            spray = SHOPS[int(looks[4] * len(SHOPS))]
            at = s + length * (0.2 + 0.4 * looks[5])
            scrawl = np.array([(at + 0.5 * k, at + 0.5 * k + 0.3, 0.5 + 0.1 * (k % 3), 1.2) for k in range(5)])
            plane.add(scrawl, light.paint(spray, away, shade))
    plane.add(np.array([(s, s + length, height - 0.12, height)]), light.paint(tone(base, 1.15), away, shade))
    plane.paint()


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
        p.lines(camera.fixed(cross), colour, FENCE, 1)
    else:
        p.lines(camera.fixed(paths), colour, FENCE, thin)
    rails = np.empty((2, 2, 3))
    rails[:, :, 0] = lat
    rails[:, :, 2] = (near, end)
    rails[:, :, 1] = y + np.array([[0.15], [height - 0.06]])
    p.lines(camera.fixed(rails), colour, FENCE, max(1, int(0.05 * scale)))
    for at in posts:
        u, v, here = camera.spot(lat, y, at)
        p.bar(u, v, u, v - (height + 0.08) * here, 0.09 * here, colour, FENCE)


def paint_railing(p: Painter, thing: Thing) -> None:
    """A railing between pavement and road."""
    paint_fence(p, thing.lat, thing.s, thing.size, 1.0, (0.0, thing.looks[1], 0.3 * thing.looks[2]))
