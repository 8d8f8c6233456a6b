"""Lamp posts, traffic lights, signs, bollards, masts of the overhead wire: thin things."""

import math

import numpy as np

from training.streets.camera import FAR, NEAR, fixed_from_pixels
from training.streets.classes import POLE, SKY, TRAFFIC_LIGHT, TRAFFIC_SIGN
from training.streets.light import Colour
from training.streets.painter import Painter
from training.streets.world import Thing

__all__ = ["paint_bollard", "paint_lamp", "paint_sign", "paint_signal", "paint_wires"]

_POLES: tuple[Colour, ...] = ((120, 120, 118), (60, 66, 62), (165, 165, 162), (62, 84, 62))


def _pole_colour(p: Painter, looks: tuple[float, ...], away: float) -> Colour:
    base = _POLES[int(looks[0] * len(_POLES))]
    return p.light.paint(base, away, p.light.facing(0, 0.1, -0.95))


def paint_lamp(p: Painter, thing: Thing) -> None:
    """A lamp post with an arm over the road; a mast of the overhead wire when `kind` is catenary."""
    away = thing.s - p.camera.s
    u, v, scale = p.camera.spot(thing.lat, 0.0, thing.s)
    colour = _pole_colour(p, thing.looks, away)
    tall = 5.0 + 3.5 * thing.looks[1]
    side = 1 if thing.lat > 0 else -1
    if thing.kind == "catenary":
        tall = 7.0
        p.bar(u, v, u, v - tall * scale, 0.17 * scale, colour, POLE)
        reach = (abs(thing.lat) + 1.6) * scale
        p.bar(u, v - 6.2 * scale, u - side * reach, v - 5.9 * scale, 0.07 * scale, colour, POLE)
        p.bar(u, v - 6.95 * scale, u - side * 0.6 * reach, v - 6.02 * scale, 0.04 * scale, colour, POLE)
        return
    top = v - tall * scale
    p.bar(u, v, u, v - 1.0 * scale, 0.17 * scale, colour, POLE)
    p.bar(u, v, u, top, 0.11 * scale, colour, POLE)
    lamp = p.light.glow((190, 235, 255), away) if p.light.night > 0.25 else colour
    if thing.looks[2] < 0.7:
        reach = (1.0 + 1.4 * thing.looks[3]) * scale
        tip_u, tip_v = u - side * reach, top - 0.3 * scale
        p.bar(u, top, tip_u, tip_v, 0.08 * scale, colour, POLE)
        p.bar(tip_u, tip_v, tip_u - side * 0.55 * scale, tip_v, 0.16 * scale, lamp, POLE)
    else:
        p.disc(u, top - 0.18 * scale, 0.22 * scale, 0.22 * scale, lamp, POLE)


def paint_bollard(p: Painter, thing: Thing) -> None:
    away = thing.s - p.camera.s
    u, v, scale = p.camera.spot(thing.lat, 0.0, thing.s)
    p.bar(u, v, u, v - 0.95 * scale, 0.12 * scale, _pole_colour(p, thing.looks, away), POLE)


def paint_signal(p: Painter, thing: Thing, time: float) -> None:
    """A traffic light; `thing.size` is the side it stands on, the right one shows us its lamps."""
    away = thing.s - p.camera.s
    looks = thing.looks
    u, v, scale = p.camera.spot(thing.lat, 0.0, thing.s)
    colour = _pole_colour(p, looks, away)
    side = thing.size
    ours = side > 0 or looks[1] < 0.35
    phase = int((time + 20 * looks[2]) % 20 / 20 * 8)
    state = 0 if phase < 3 else 1 if phase == 3 else 2
    arm = looks[3] < 0.45
    tall = 5.6 if arm else 3.4
    p.bar(u, v, u, v - tall * scale, 0.13 * scale, colour, POLE)
    heads = [(u - side * 0.02 * scale, v - 2.9 * scale)]
    if arm:
        reach = (2.2 + 1.6 * looks[4]) * scale
        p.bar(u, v - 5.5 * scale, u - side * reach, v - 5.6 * scale, 0.1 * scale, colour, POLE)
        heads.append((u - side * reach, v - 5.3 * scale))
    for at_u, at_v in heads:
        _paint_head(p, at_u, at_v, scale, away, ours, state)


def _paint_head(p: Painter, u: float, v: float, scale: float, away: float, ours: bool, state: int) -> None:
    light = p.light
    case = light.paint((42, 44, 42), away, light.facing(0, 0, -1))
    half_u, half_v = 0.19 * scale, 0.52 * scale
    p.box(u - half_u, v - half_v, u + half_u, v + half_v, case, TRAFFIC_LIGHT)
    if not ours:
        return
    lamps: tuple[Colour, ...] = ((40, 40, 255), (30, 190, 255), (110, 240, 60))
    for k, lamp in enumerate(lamps):
        on = k == state
        colour = light.glow(lamp, away) if on else light.paint((46, 52, 58), away, 0.8)
        size = max(0.11 * scale, 0.4 if on else 0.0)
        if size > 0.35:
            p.disc(u, v + (k - 1) * 0.32 * scale, size, size, colour, TRAFFIC_LIGHT)


def paint_sign(p: Painter, thing: Thing) -> None:
    """One or two plates on a post: disc, triangle, octagon, diamond, square or a direction board."""
    away = thing.s - p.camera.s
    looks = thing.looks
    u, v, scale = p.camera.spot(thing.lat, 0.0, thing.s)
    colour = _pole_colour(p, looks, away)
    kind = int(looks[1] * 8) if thing.size == 0.0 else 7
    high = 2.2 + 0.6 * looks[2]
    r = 0.34 + 0.08 * looks[3]
    shade = p.light.facing(0, 0, -1)

    def paint(base: Colour) -> Colour:
        return p.light.paint(base, away, 0.25 + 0.8 * shade)

    red, blue, white, yellow = paint((45, 40, 200)), paint((175, 80, 25)), paint((235, 235, 235)), paint((30, 190, 245))
    p.bar(u, v, u, v - (high + r) * scale, 0.075 * scale, colour, POLE)
    at = v - high * scale
    rim = r * scale
    if looks[4] < 0.2:  # seen from behind
        p.disc(u, at, rim, rim, paint((140, 140, 140)), TRAFFIC_SIGN)
    elif kind in (0, 1):
        p.disc(u, at, rim, rim, red, TRAFFIC_SIGN)
        p.disc(u, at, 0.72 * rim, 0.72 * rim, white, TRAFFIC_SIGN)
        p.box(u - 0.3 * rim, at - 0.3 * rim, u + 0.3 * rim, at + 0.3 * rim, paint((50, 50, 50)), TRAFFIC_SIGN)
    elif kind == 2:
        p.disc(u, at, rim, rim, blue, TRAFFIC_SIGN)
        p.box(u - 0.12 * rim, at - 0.5 * rim, u + 0.12 * rim, at + 0.5 * rim, white, TRAFFIC_SIGN)
    elif kind == 3:
        _plate(p, u, at, 1.15 * rim, 3, math.pi / 2, red)
        _plate(p, u, at, 0.65 * rim, 3, math.pi / 2, white)
    elif kind == 4:
        _plate(p, u, at, 1.05 * rim, 8, math.pi / 8, red)
        p.box(u - 0.6 * rim, at - 0.18 * rim, u + 0.6 * rim, at + 0.18 * rim, white, TRAFFIC_SIGN)
    elif kind == 5:
        _plate(p, u, at, 1.1 * rim, 4, math.pi / 2, white)
        _plate(p, u, at, 0.8 * rim, 4, math.pi / 2, yellow)
    elif kind == 6:
        w = (0.9 + 0.7 * looks[5]) * scale
        board = blue if looks[6] < 0.4 else paint((90, 120, 30)) if looks[6] < 0.7 else yellow
        p.box(u - w, at - 0.45 * scale, u + w, at + 0.45 * scale, board, TRAFFIC_SIGN)
        p.box(u - 0.8 * w, at - 0.2 * scale, u + 0.5 * w, at - 0.08 * scale, white, TRAFFIC_SIGN)
        p.box(u - 0.8 * w, at + 0.08 * scale, u + 0.2 * w, at + 0.2 * scale, white, TRAFFIC_SIGN)
    else:
        p.box(u - rim, at - rim, u + rim, at + rim, blue, TRAFFIC_SIGN)
        _plate(p, u, at, 0.75 * rim, 3, math.pi / 2, white)
    if looks[7] < 0.35 and kind < 6:
        low = at + 1.5 * rim
        p.box(u - 0.9 * rim, low - 0.3 * rim, u + 0.9 * rim, low + 0.3 * rim, white, TRAFFIC_SIGN)


def _plate(p: Painter, u: float, v: float, r: float, sides: int, turn: float, colour: Colour) -> None:
    angles = turn + np.arange(sides) * (2 * np.pi / sides)
    corners = np.stack([u + r * np.cos(angles), v - r * np.sin(angles)], axis=1)
    p.fill(fixed_from_pixels(corners), colour, TRAFFIC_SIGN)


def paint_wires(p: Painter, s: float) -> None:
    """The tram's contact wires, one pixel wide. They keep the label behind them, as Cityscapes does."""
    behind = p.canvas[..., 3].copy()
    z = np.geomspace(NEAR + 3, FAR * 0.55, 14)
    paths = np.empty((2, 14, 3))
    paths[:, :, 0] = np.array([[-1.55], [1.55]])
    paths[:, :, 1] = 5.8
    paths[:, :, 2] = s + z
    p.lines(p.camera.fixed(paths), p.light.paint((60, 60, 62), 25.0, p.light.ambient), SKY, 1)
    p.canvas[..., 3] = behind
