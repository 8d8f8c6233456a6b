"""Trees, bushes and hedges: trunks and branches of bars, foliage of leafy sprites."""

import math

import numpy as np

from training.streets.camera import fixed_from_pixels
from training.streets.classes import VEGETATION
from training.streets.light import Colour, tone
from training.streets.painter import Bytes, Painter
from training.streets.textures import crowns

__all__ = ["paint_bush", "paint_hedge", "paint_tree"]

_LEAVES: tuple[Colour, ...] = (
    (45, 120, 75), (40, 105, 50), (50, 140, 100), (38, 92, 66), (40, 130, 140), (45, 115, 170),
)  # fmt: skip
_RAMP = np.arange(256)[:, None] / 128


def _leaf_table(p: Painter, pick: float, away: float) -> Bytes:
    """What foliage of a shade paints, `[256,4]`: from deep shade to sunlit, and the label."""
    base = _LEAVES[int(pick * pick * len(_LEAVES))]
    shade = p.light.ambient * 0.9 + 0.45 * p.light.sun
    dark, lit = p.light.paint((0, 0, 0), away), p.light.paint(base, away, shade)
    table = np.full((256, 4), VEGETATION, np.uint8)
    table[:, :3] = np.minimum(np.array(dark) + np.subtract(lit, dark) * _RAMP, 255)
    return table


def paint_tree(p: Painter, lat: float, s: float, height: float, looks: tuple[float, ...]) -> None:
    """A tree `height` metres tall; one in six is bare."""
    camera, light = p.camera, p.light
    away = s - camera.s
    if away < 1.5 or not camera.sees(lat, s, 0.5 * height):
        return
    u, v, scale = camera.spot(lat, 0.0, s)
    brown = light.paint((62, 76, 92), away, light.facing(0, 0.2, -0.9))
    trunk = height * (0.32 + 0.12 * looks[0])
    top_u, top_v = u + (looks[1] - 0.5) * 0.4 * scale, v - trunk * scale
    thick = 0.028 * height * scale
    p.bar(u, v, top_u, top_v, thick, brown, VEGETATION)
    if looks[2] > 0.84:
        _paint_branches(p, top_u, top_v, height * scale, thick, brown, looks)
        return
    if scale > 9:
        for turn in (-0.55, 0.1, 0.6):
            reach = 0.24 * height * scale
            tip_u, tip_v = top_u + math.sin(turn) * reach, top_v - math.cos(turn) * reach
            p.bar(top_u, top_v, tip_u, tip_v, 0.4 * thick, brown, VEGETATION)
    sprites = crowns()
    wide, tall = height * (0.26 + 0.12 * looks[4]) * scale, height * (0.34 + 0.06 * looks[5]) * scale
    sprite = sprites[int(looks[6] * len(sprites))]
    p.stamp(sprite, _leaf_table(p, looks[3], away), top_u, v - height * 0.64 * scale, wide, tall)


def _paint_branches(
    p: Painter, u: float, v: float, tall: float, thick: float, colour: Colour, looks: tuple[float, ...]
) -> None:
    """The fan of branches and twigs of a bare tree that is `tall` pixels high."""
    boughs, twigs = [], []
    for k in range(7):
        angle = (k / 6 - 0.5) * 2.0 + 0.3 * (looks[k % 5 + 3] - 0.5)
        reach = tall * (0.42 + 0.16 * looks[(k + 4) % 9])
        du, dv = math.sin(angle) * reach, -math.cos(angle) * reach
        boughs.append(((u, v), (u + du, v + dv)))
        for t in (0.35, 0.6, 0.8):
            tip = reach * 0.38 * (1 - 0.5 * t)
            for turn in (angle - 0.6, angle + 0.6):
                foot = (u + t * du, v + t * dv)
                twigs.append((foot, (foot[0] + math.sin(turn) * tip, foot[1] - math.cos(turn) * tip)))
    p.lines(fixed_from_pixels(np.array(twigs)), colour, VEGETATION, max(1, round(0.14 * thick)))
    p.lines(fixed_from_pixels(np.array(boughs)), colour, VEGETATION, max(1, round(0.33 * thick)))


def paint_bush(p: Painter, lat: float, s: float, height: float, pick: float) -> None:
    """A round bush."""
    camera = p.camera
    away = s - camera.s
    if away < 1.5 or not camera.sees(lat, s, height):
        return
    u, v, scale = camera.spot(lat, 0.45 * height, s)
    sprites = crowns()
    sprite = sprites[int(pick * 977 % len(sprites))]
    p.stamp(sprite, _leaf_table(p, pick, away), u, v, 0.9 * height * scale, 0.62 * height * scale)


def paint_hedge(p: Painter, lat: float, s: float, length: float, height: float, pick: float) -> None:
    """A clipped hedge: a green block with leafy lumps along it."""
    camera, light = p.camera, p.light
    near, end = max(s, camera.s + 1.2), s + length
    if end <= near:
        return
    away = near - camera.s + 0.3 * (end - near)
    base = _LEAVES[int(pick * pick * len(_LEAVES))]
    side = 1 if lat > camera.lat else -1
    green = tone(light.paint(base, away, light.facing(-side, 0.2, 0)), 0.8)
    top = 0.86 * height
    p.quad(np.array([(lat, 0, near), (lat, 0, end), (lat, top, end), (lat, top, near)]), green, VEGETATION)
    table = _leaf_table(p, pick, away)
    sprites = crowns()
    for k, at in enumerate(np.arange(end - 0.5, max(near, camera.s + 2.0), -1.3).tolist()):
        u, v, scale = camera.spot(lat, 0.55 * height, at)
        sprite = sprites[(k + int(pick * 100)) % len(sprites)]
        wide = scale * (0.54 + 0.36 * abs(u - camera.width / 2) / camera.width)
        p.stamp(sprite, table, u, v, wide, 0.56 * height * scale)
