"""Trees, bushes and hedges: trunks and branches of bars, foliage of leafy sprites."""

import math

import numpy as np

from training.streets.classes import VEGETATION
from training.streets.light import Colour
from training.streets.painter import Bytes, Painter
from training.streets.textures import crowns

__all__ = ["paint_bush", "paint_hedge", "paint_tree"]

_LEAVES: tuple[Colour, ...] = (
    (45, 120, 75), (40, 105, 50), (50, 140, 100), (38, 92, 66), (40, 130, 140), (45, 115, 170),
)  # fmt: skip
_TONES = np.arange(256, dtype=np.float64)


def _leaf_table(p: Painter, pick: float, away: float) -> Bytes:
    """Colours `[256,3]` of foliage from deep shade to sunlit."""
    base = _LEAVES[int(pick * pick * len(_LEAVES))]
    light = p.light
    shade = light.ambient * 0.9 + 0.45 * light.sun
    dark = np.array(light.paint((0, 0, 0), away))
    lit = np.array(light.paint(base, away, shade))
    tone = (_TONES / 128)[:, None]
    return np.clip(dark + (lit - dark) * tone, 0, 255).astype(np.uint8)


def paint_tree(p: Painter, lat: float, s: float, height: float, looks: tuple[float, ...]) -> None:
    """A tree `height` metres tall; one in six is bare."""
    camera = p.camera
    away = s - camera.s
    if away < 1.5 or not camera.sees(lat, s, 0.5 * height):
        return
    u, v, scale = camera.spot(lat, 0.0, s)
    light = p.light
    brown = light.paint((62, 76, 92), away, light.facing(0, 0.2, -0.9))
    trunk = height * (0.32 + 0.12 * looks[0])
    lean = (looks[1] - 0.5) * 0.4
    thick = 0.028 * height * scale
    top_u, top_v = u + lean * scale, v - trunk * scale
    p.bar(u, v, top_u, top_v, thick, brown, VEGETATION)
    bare = looks[2] > 0.84
    for k in range(7 if bare else 3):
        angle = (k / (6 if bare else 2) - 0.5) * 2.0 + 0.3 * (looks[k % 5 + 3] - 0.5)
        reach = height * (0.42 + 0.16 * looks[(k + 4) % 9]) * scale
        end_u, end_v = top_u + math.sin(angle) * reach, top_v - math.cos(angle) * reach
        p.bar(top_u, top_v, end_u, end_v, 0.35 * thick, brown, VEGETATION)
        if bare:
            for t in (0.35, 0.6, 0.8):
                mid_u, mid_v = top_u + t * (end_u - top_u), top_v + t * (end_v - top_v)
                for turn in (-0.6, 0.6):
                    tip = reach * 0.38 * (1 - 0.5 * t)
                    p.bar(
                        mid_u, mid_v, mid_u + math.sin(angle + turn) * tip, mid_v - math.cos(angle + turn) * tip,
                        0.15 * thick, brown, VEGETATION,
                    )  # fmt: skip
    if bare:
        return
    table = _leaf_table(p, looks[3], away)
    sprites = crowns()
    wide = height * (0.26 + 0.12 * looks[4]) * scale
    tall = height * (0.34 + 0.06 * looks[5]) * scale
    sprite = sprites[int(looks[6] * len(sprites))]
    p.stamp(sprite, table, top_u, v - height * 0.64 * scale, wide, tall, VEGETATION)


def paint_bush(p: Painter, lat: float, s: float, height: float, pick: float) -> None:
    """A round bush."""
    camera = p.camera
    away = s - camera.s
    if away < 1.5 or not camera.sees(lat, s, height):
        return
    u, v, scale = camera.spot(lat, 0.45 * height, s)
    sprites = crowns()
    sprite = sprites[int(pick * 977 % len(sprites))]
    p.stamp(sprite, _leaf_table(p, pick, away), u, v, 0.9 * height * scale, 0.62 * height * scale, VEGETATION)


def paint_hedge(p: Painter, lat: float, s: float, length: float, height: float, pick: float) -> None:
    """A clipped hedge: a green block with leafy lumps along it."""
    camera, light = p.camera, p.light
    near, end = max(s, camera.s + 1.2), s + length
    if end <= near:
        return
    away = near - camera.s + 0.3 * (end - near)
    base = _LEAVES[int(pick * pick * len(_LEAVES))]
    side = 1 if lat > camera.lat else -1
    green = light.paint(base, away, 0.8 * light.facing(-side, 0.2, 0))
    top = 0.86 * height
    p.quad(np.array([(lat, 0, near), (lat, 0, end), (lat, top, end), (lat, top, near)]), green, VEGETATION)
    table = _leaf_table(p, pick, away)
    sprites = crowns()
    for k, at in enumerate(np.arange(end - 0.5, max(near, camera.s + 2.0), -1.3)):
        u, v, scale = camera.spot(lat, 0.55 * height, float(at))
        sprite = sprites[(k + int(pick * 100)) % len(sprites)]
        p.stamp(sprite, table, u, v, 0.9 * scale * (0.3 + 0.4 * abs(u - camera.width / 2) / camera.width + 0.3),
                0.56 * height * scale, VEGETATION)  # fmt: skip
