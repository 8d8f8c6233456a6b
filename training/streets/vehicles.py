"""Cars, trucks, buses and trams: closed shapes of quads, painted where they face the camera."""

import math
from functools import lru_cache

import numpy as np

from training.streets.camera import Floats, fixed_from_pixels
from training.streets.classes import BUS, CAR, TRAIN, TRUCK
from training.streets.light import Colour
from training.streets.meshes import GLASS, HEAD, SIGN, TAIL, Mesh, mesh_for
from training.streets.painter import Painter

__all__ = ["KINDS", "footprint", "paint_vehicle"]

KINDS = {"car": CAR, "truck": TRUCK, "bus": BUS, "tram": TRAIN}

_CAR_PAINT: tuple[Colour, ...] = (
    (235, 235, 235), (40, 38, 38), (150, 150, 152), (90, 88, 86), (150, 70, 30), (40, 40, 170),
    (60, 110, 50), (190, 190, 185), (120, 60, 40), (30, 60, 140), (60, 170, 210), (110, 45, 90),
)  # fmt: skip
_TRUCK_PAINT: tuple[Colour, ...] = (
    (225, 225, 222), (50, 60, 190), (170, 90, 30), (70, 150, 60), (60, 170, 230), (190, 185, 175),
)  # fmt: skip
_BUS_PAINT: tuple[Colour, ...] = (
    (40, 40, 200), (30, 190, 240), (200, 130, 40), (90, 170, 60), (60, 110, 235), (180, 60, 130),
)  # fmt: skip
_TRAM_PAINT: tuple[Colour, ...] = (
    (60, 210, 245), (225, 225, 225), (60, 60, 190), (120, 150, 60), (165, 105, 40),
)  # fmt: skip
_PAINTS = {"car": _CAR_PAINT, "truck": _TRUCK_PAINT, "bus": _BUS_PAINT, "tram": _TRAM_PAINT}
_LENGTHS = {"car": 4.3, "truck": 8.0, "bus": 11.5, "tram": 9.4}


def footprint(kind: str) -> tuple[float, float]:
    """(length, width) in metres, about."""
    return _LENGTHS[kind], {"car": 1.8, "truck": 2.5, "bus": 2.55, "tram": 2.5}[kind]


@lru_cache(maxsize=64)
def _mesh(kind: str, variant: int, end: int) -> Mesh:
    return mesh_for(kind, variant, end)


def _variant(kind: str, looks: tuple[float, ...]) -> int:
    return int(looks[1] * {"car": 5, "truck": 4, "bus": 3, "tram": 2}[kind])


def _palette(p: Painter, kind: str, looks: tuple[float, ...]) -> list[Colour]:
    """Base colours by role (see `meshes.ROLES`)."""
    paints = _PAINTS[kind]
    body = paints[int(looks[2] * len(paints))]
    gain = 0.85 + 0.3 * looks[3]
    body = (body[0] * gain, body[1] * gain, body[2] * gain)
    cargo = _TRUCK_PAINT[int(looks[4] * len(_TRUCK_PAINT))]
    stripe: Colour = (235, 235, 235) if sum(body) < 420 else (70, 60, 60)
    dark = p.light.night
    glass: Colour = (92, 78, 64) if kind == "car" else (112, 96, 78)
    if dark > 0.5 and kind in ("bus", "tram"):
        glass = (150, 215, 240)
    return [
        body, glass, (30, 29, 28), (38, 36, 205 if dark < 0.3 else 255), (225, 240, 245),
        (215, 225, 225), cargo, (160, 160, 158), (40, 190, 255), stripe, (58, 56, 55),
    ]  # fmt: skip


def paint_vehicle(
    p: Painter, kind: str, lat: float, s: float, yaw: float, looks: tuple[float, ...], end: int = 3
) -> None:
    """Paint one vehicle. `yaw` 0 drives away, pi comes towards us; `end` bit 0 tail, bit 1 nose (trams)."""
    mesh = _mesh(kind, _variant(kind, looks), end)
    label = KINDS[kind]
    size = p.camera.focal / max(s - p.camera.s, 2.0)
    palette = _palette(p, kind, looks)
    cos, sin = math.cos(yaw), math.sin(yaw)
    away = max(s - p.camera.s, 1.0)
    uv, _ = p.camera.pixels(_placed(mesh.quads, lat, s, cos, sin))
    ab, bc = uv[:, 2] - uv[:, 0], uv[:, 3] - uv[:, 1]
    area = ab[:, 0] * bc[:, 1] - ab[:, 1] * bc[:, 0]
    fixed = fixed_from_pixels(uv)
    detail = size > 8.0
    colours = _colours(p, mesh, palette, kind, cos, sin, away)
    wheels_at: int | None = mesh.wheels_after
    for index in np.flatnonzero(area < 0).tolist():
        if wheels_at is not None and index >= wheels_at:
            _paint_wheels(p, mesh, lat, s, cos, sin, away, label, size)
            wheels_at = None
        if detail or mesh.outline[index] or mesh.roles[index] == GLASS:
            p.fill(fixed[index], colours[index], label)
    if wheels_at is not None:
        _paint_wheels(p, mesh, lat, s, cos, sin, away, label, size)


def _colours(
    p: Painter, mesh: Mesh, palette: list[Colour], kind: str, cos: float, sin: float, away: float
) -> list[Colour]:
    """Every face's colour: its normal turned by the yaw and lit, then haze; lamps glow."""
    light, n = p.light, mesh.normals
    lat = n[:, 0] * cos + n[:, 2] * sin
    along = n[:, 2] * cos - n[:, 0] * sin
    lambert = lat * light.sun_lat + n[:, 1] * light.sun_up + along * light.sun_s
    shade = light.ambient * (0.86 + 0.2 * n[:, 1] + 0.05 * np.abs(lat)) + light.sun * np.maximum(lambert, 0)
    lit, dark = np.array([light.paint(base, away) for base in palette]), np.array(light.paint((0, 0, 0), away))
    roles = np.array(mesh.roles)
    colours = dark + (lit - dark)[roles] * shade[:, None]
    glowing = {SIGN} | ({TAIL, HEAD} if light.night > 0.3 else set())
    if light.night > 0.5 and kind in ("bus", "tram"):
        glowing.add(GLASS)
    for role in glowing:
        colours[roles == role] = light.glow(palette[role], away)
    return [(b, g, r) for b, g, r in colours.tolist()]


def _placed(points: Floats, lat: float, s: float, cos: float, sin: float) -> Floats:
    """Local (right, up, forward) `[...,3]` to street coordinates."""
    out = np.empty_like(points)
    out[..., 0] = lat + points[..., 0] * cos + points[..., 2] * sin
    out[..., 1] = points[..., 1]
    out[..., 2] = s + points[..., 2] * cos - points[..., 0] * sin
    return out


def _paint_wheels(
    p: Painter,
    mesh: Mesh,
    lat: float,
    s: float,
    cos: float,
    sin: float,
    away: float,
    label: int,
    size: float,
) -> None:
    """Tyres and hubs on the side that shows."""
    if not len(mesh.wheels):
        return
    uv, _ = p.camera.pixels(_placed(mesh.wheels, lat, s, cos, sin))
    a, b = uv[:, 4] - uv[:, 0], uv[:, 8] - uv[:, 0]
    facing = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0] < 0
    if not facing.any():
        return
    fixed = fixed_from_pixels(uv[facing])
    tyre = p.light.paint((34, 33, 32), away, p.light.ambient)
    p.fill_all(fixed, tyre, label)
    if size > 6.0:
        centre = uv[facing].mean(axis=1, keepdims=True)
        hubs = fixed_from_pixels(centre + 0.55 * (uv[facing] - centre))
        p.fill_all(hubs, p.light.paint((150, 150, 150), away, p.light.ambient), label)
