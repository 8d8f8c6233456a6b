"""Shadows on the ground: under vehicles, and cast by the sun."""

import math

import cv2
import numpy as np

from training.streets.camera import NEAR, Floats
from training.streets.painter import Bytes, Painter
from training.streets.vehicles import footprint
from training.streets.world import Thing

__all__ = ["shadow_mask"]

_SHADOWS = {"lamp": (6.0, 0.12), "signal": (3.4, 0.13), "sign": (2.6, 0.1), "catenary": (7.0, 0.17)}


def shadow_mask(p: Painter, things: list[Thing], moving: list[Thing]) -> Bytes:
    """Where the ground is dark: under vehicles and people, and cast away from the sun. uint8 `[H,W]`."""
    camera, light = p.camera, p.light
    mask = np.zeros(p.canvas.shape[:2], np.uint8)
    slope = 1 / max(light.sun_up, 0.3)
    cast_lat, cast_s = -light.sun_lat * slope, -light.sun_s * slope
    casts: list[Floats] = []
    strong = light.sun > 0.2
    for t in things:
        if t.kind == "building" and strong and t.s + t.size > camera.s + NEAR:
            high = 8.0 + 13 * t.looks[0] * t.looks[0]
            reach = cast_lat * high * (1 if t.lat < 0 else -1)
            if reach > 1:
                far = t.lat + cast_lat * high
                drift = cast_s * high
                casts.append(
                    np.array(
                        [
                            (t.lat, 0, t.s),
                            (t.lat, 0, t.s + t.size),
                            (far, 0, t.s + t.size + drift),
                            (far, 0, t.s + drift),
                        ]
                    )
                )
        elif t.kind in _SHADOWS and strong and camera.s + 2 < t.s < camera.s + 45:
            high, wide = _SHADOWS[t.kind]
            casts.append(_strip(t.lat, t.s, cast_lat * high, cast_s * high, wide))
        elif t.kind == "tree" and camera.s + 2 < t.s < camera.s + 60:
            ring = np.arange(12) * (2 * np.pi / 12)
            r = 0.32 * t.size * (1 + 0.15 * np.sin(5 * ring + 9 * t.looks[0]))
            lat, s = t.lat + cast_lat * 0.6 * t.size * strong, t.s + cast_s * 0.6 * t.size * strong
            casts.append(np.stack([lat + r * np.cos(ring), 0 * ring, s + r * np.sin(ring)], axis=1))
    for quad in casts:
        if quad[:, 2].max() > camera.s + NEAR:
            cv2.fillPoly(mask, [camera.fixed(quad)], (150,), cv2.LINE_8, 4)
    for t in [*moving, *things]:
        if not camera.s + 1 < t.s < camera.s + 70:
            continue
        if t.kind in ("car", "truck", "bus", "tram"):
            long, wide = footprint(t.kind)
            along, across = (0.5 * long, 0.56 * wide) if abs(math.cos(t.yaw)) > 0.5 else (0.56 * wide, 0.5 * long)
            x0, x1 = t.lat - across + min(0, 0.8 * cast_lat * strong), t.lat + across + max(0, 0.8 * cast_lat * strong)
            z0, z1 = t.s - along - 0.25 + min(0, 0.7 * cast_s * strong), t.s + along + max(0, 0.7 * cast_s * strong)
            quad = np.array([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)])
            cv2.fillPoly(mask, [camera.fixed(quad)], (225,), cv2.LINE_8, 4)
        elif t.kind in ("person", "cyclist", "moto-rider", "motorcycle", "stand"):
            reach = 1.5 if strong else 0.3
            quad = _strip(t.lat, t.s, cast_lat * reach, cast_s * reach, 0.4)
            cv2.fillPoly(mask, [camera.fixed(quad)], (170,), cv2.LINE_8, 4)
    return np.asarray(cv2.blur(mask, (3, 3)), np.uint8)


def _strip(lat: float, s: float, d_lat: float, d_s: float, wide: float) -> Floats:
    """A strip on the ground from a foot point in a direction."""
    length = math.hypot(d_lat, d_s) or 1.0
    n_lat, n_s = -d_s / length * wide / 2, d_lat / length * wide / 2
    return np.array(
        [(lat + n_lat, 0, s + n_s), (lat + d_lat + n_lat, 0, s + d_s + n_s),
         (lat + d_lat - n_lat, 0, s + d_s - n_s), (lat - n_lat, 0, s - n_s)]
    )  # fmt: skip
