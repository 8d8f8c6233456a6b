"""People, bicycles and motorcycles as stick figures with thickness: capsules and rings in three dimensions."""

import math
from dataclasses import dataclass

import numpy as np

from training.streets.camera import Floats, fixed_from_pixels
from training.streets.classes import BICYCLE, MOTORCYCLE, PERSON, RIDER
from training.streets.light import Colour
from training.streets.painter import Painter

__all__ = ["paint_bicycle", "paint_motorcycle", "paint_person"]

# A stick: from (across, up, along) to the same, width at both ends, colour index. Metres.
Stick = tuple[float, float, float, float, float, float, float, float, int]

_CLOTHES: tuple[Colour, ...] = (
    (60, 50, 45), (150, 75, 40), (45, 45, 175), (210, 205, 200), (60, 130, 70), (40, 160, 220),
    (120, 60, 130), (95, 95, 95), (40, 90, 230), (160, 140, 60),
)  # fmt: skip
_TROUSERS: tuple[Colour, ...] = ((95, 60, 40), (45, 42, 40), (110, 105, 100), (80, 105, 135), (60, 50, 90))
_SKIN: tuple[Colour, ...] = ((150, 180, 228), (110, 145, 200), (70, 95, 145), (48, 62, 92))
_HAIR: tuple[Colour, ...] = ((25, 25, 28), (40, 60, 90), (80, 140, 185), (130, 130, 132))


@dataclass(frozen=True, slots=True)
class _Pose:
    """Where a figure stands and which way it faces."""

    lat: float
    y: float
    s: float
    cos: float
    sin: float

    def place(self, points: Floats) -> Floats:
        """(across, up, along) `[...,3]` to street coordinates."""
        out = np.empty_like(points)
        out[..., 0] = self.lat + points[..., 0] * self.cos + points[..., 2] * self.sin
        out[..., 1] = self.y + points[..., 1]
        out[..., 2] = self.s + points[..., 2] * self.cos - points[..., 0] * self.sin
        return out


def _paint_sticks(p: Painter, pose: _Pose, sticks: list[Stick], colours: list[Colour], label: int) -> None:
    table = np.array([stick[:8] for stick in sticks])
    ends = pose.place(table[:, :6].reshape(-1, 2, 3))
    uv, z = p.camera.pixels(ends)
    width = np.maximum(table[:, 6:8] * (p.camera.focal / z) - 1.0, 0.0) * 0.5
    along = uv[:, 1] - uv[:, 0]
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-6)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
    a, b = uv[:, 0], uv[:, 1]
    wa, wb = width[:, :1], width[:, 1:]
    outline = np.stack(
        [
            a + normal * wa, b + normal * wb, b + 0.55 * normal * wb + 0.5 * along * wb,
            b - 0.55 * normal * wb + 0.5 * along * wb, b - normal * wb, a - normal * wa,
            a - 0.55 * normal * wa - 0.5 * along * wa, a + 0.55 * normal * wa - 0.5 * along * wa,
        ],
        axis=1,
    )  # fmt: skip
    fixed = fixed_from_pixels(outline)
    for k, stick in enumerate(sticks):
        p.fill(fixed[k], colours[stick[8]], label)


def _paint_rings(
    p: Painter, pose: _Pose, wheels: list[tuple[float, float]], tyre: float, colour: Colour, label: int
) -> None:
    """Wheel rings at (along, radius), tyres `tyre` metres thick, see-through inside."""
    rings = np.zeros((len(wheels), 18, 3))
    for k, (along, radius) in enumerate(wheels):
        rings[k, :, 1] = radius + (radius - tyre / 2) * _SIN
        rings[k, :, 2] = along + (radius - tyre / 2) * _COS
    uv, z = p.camera.pixels(pose.place(rings))
    thickness = max(1, int(tyre * p.camera.focal / float(z.min()) + 0.4))
    p.lines(fixed_from_pixels(uv), colour, label, thickness, closed=True)


_FAR_SCALE = 15.0  # pixels per metre below which a person is painted with fewer strokes
_TURN = np.arange(18) * (2 * np.pi / 18)
_SIN, _COS = np.sin(_TURN), np.cos(_TURN)


def _outfit(p: Painter, looks: tuple[float, ...], away: float, helmet: bool) -> list[Colour]:
    """Shirt, trousers, skin, hair or helmet, shoes, bag."""
    shade = p.light.facing(0, 0, -1) * (0.95 + 0.1 * looks[0])
    base = [
        _CLOTHES[int(looks[1] * len(_CLOTHES))],
        _TROUSERS[int(looks[2] * len(_TROUSERS))],
        _SKIN[int(looks[3] * len(_SKIN))],
        _CLOTHES[int(looks[4] * len(_CLOTHES))] if helmet else _HAIR[int(looks[4] * len(_HAIR))],
        (40.0, 36.0, 34.0),
        _CLOTHES[int(looks[5] * len(_CLOTHES))],
    ]
    return [p.light.paint(colour, away, shade) for colour in base]


def paint_person(
    p: Painter, lat: float, s: float, yaw: float, looks: tuple[float, ...], phase: float, y: float = 0.0
) -> None:
    """A person on foot. `phase` in radians swings the legs; a standing one has phase 0."""
    away = max(s - p.camera.s, 1.0)
    if p.camera.focal / away < _FAR_SCALE:
        _paint_far_person(p, lat, s, looks, math.sin(phase), y)
        return
    tall = 0.86 + 0.2 * looks[6] if looks[7] > 0.12 else 0.66
    swing = 0.33 * math.sin(phase)
    lift = 0.1 * max(0.0, math.cos(phase))
    cos, sin = math.cos(yaw), math.sin(yaw)
    broad = 0.3 + 0.16 * abs(cos)
    sticks: list[Stick] = []
    for side, step, up in ((-0.11, swing, lift), (0.11, -swing, 0.06 - 0.6 * lift)):
        knee = 0.5 * step + 0.05
        sticks.append((side, 0.5, knee, side, 0.06 + max(up, 0), step, 0.14, 0.1, 1))
        sticks.append((side * 0.8, 0.95, 0.0, side, 0.48, knee, 0.2, 0.14, 1))
        sticks.append((side, 0.05 + max(up, 0), step - 0.05, side, 0.04 + max(up, 0), step + 0.16, 0.1, 0.08, 4))
    hand = 0.85 + 0.1 * looks[8]
    sticks.append((-0.25, 1.38, 0, -0.3, hand, -swing * 1.1, 0.12, 0.08, 0))
    if looks[9] > 0.72:
        sticks.append((0.0, 1.35, -0.14, 0.0, 1.05, -0.16, 0.28, 0.3, 5))
    sticks.append((0, 1.36, 0, 0, 0.92, 0, broad, broad * 0.85, 0))
    if looks[2] > 0.8:
        sticks.append((0, 0.98, 0, 0, 0.55, 0, broad * 0.85, broad * 1.25, 0))
    sticks.append((0.25, 1.38, 0, 0.3, hand, swing * 1.1, 0.12, 0.08, 0))
    if looks[9] < 0.2:
        sticks.append((0.32, 0.75, swing, 0.32, 0.5, swing, 0.26, 0.3, 5))
    sticks.append((0, 1.44, 0, 0, 1.53, 0, 0.1, 0.1, 2))
    sticks.append((0, 1.57, 0.01, 0, 1.68, 0.01, 0.18, 0.2, 2))
    sticks.append((0, 1.66, -0.03, 0, 1.73, -0.02, 0.22, 0.16, 3))
    scaled = [(*(tall * v for v in stick[:8]), stick[8]) for stick in sticks]
    _paint_sticks(p, _Pose(lat, y, s, cos, sin), scaled, _outfit(p, looks, away, False), PERSON)  # type: ignore[arg-type]


def _paint_far_person(p: Painter, lat: float, s: float, looks: tuple[float, ...], swing: float, y: float) -> None:
    """A person a few pixels wide: two legs, body, head."""
    u, v, scale = p.camera.spot(lat, y, s)
    k = scale * (0.86 + 0.2 * looks[6] if looks[7] > 0.12 else 0.66)
    shirt, trousers, skin, hair, _, _ = _outfit(p, looks, s - p.camera.s, False)
    hip = v - 0.9 * k
    for side in (-0.1 - 0.1 * swing, 0.1 + 0.1 * swing):
        p.bar(u + side * k, v, u + 0.5 * side * k, hip, 0.15 * k, trousers, PERSON)
    p.bar(u, hip, u, v - 1.42 * k, 0.46 * k, shirt, PERSON)
    p.bar(u, v - 1.5 * k, u, v - 1.66 * k, 0.2 * k, skin, PERSON)
    p.bar(u, v - 1.66 * k, u, v - 1.74 * k, 0.2 * k, hair, PERSON)


def _paint_rider(
    p: Painter, pose: _Pose, looks: tuple[float, ...], phase: float, away: float, lean: float, seat: float
) -> None:
    """Someone sitting at height `seat`, leaning `lean` metres forward, feet going round with `phase`."""
    if p.camera.focal / away < _FAR_SCALE:
        _paint_far_rider(p, pose, looks, away, lean, seat)
        return
    sticks: list[Stick] = []
    for side, turn in ((-0.1, phase), (0.1, phase + math.pi)):
        foot_y, foot_z = 0.3 + 0.15 * math.sin(turn), 0.08 + 0.15 * math.cos(turn)
        knee_y, knee_z = 0.5 * (foot_y + seat) + 0.1, 0.5 * foot_z + 0.2
        sticks.append((side, seat, -0.2, side * 1.3, knee_y, knee_z, 0.18, 0.14, 1))
        sticks.append((side * 1.3, knee_y, knee_z, side, foot_y, foot_z, 0.13, 0.09, 1))
        sticks.append((side, foot_y - 0.02, foot_z - 0.04, side, foot_y - 0.03, foot_z + 0.16, 0.09, 0.08, 4))
    top = seat + 0.55
    broad = 0.28 + 0.14 * abs(pose.cos)
    sticks.append((0, seat, -0.2, 0, top, lean - 0.2, 0.3, broad, 0))
    for side in (-0.22, 0.22):
        sticks.append((side, top - 0.04, lean - 0.2, side * 1.25, top - 0.3, lean + 0.02, 0.11, 0.09, 0))
        sticks.append((side * 1.25, top - 0.3, lean + 0.02, side, 1.02, 0.42, 0.09, 0.07, 2))
    sticks.append((0, top + 0.14, lean - 0.14, 0, top + 0.24, lean - 0.13, 0.19, 0.2, 2))
    sticks.append((0, top + 0.21, lean - 0.16, 0, top + 0.31, lean - 0.15, 0.25, 0.18, 3))
    _paint_sticks(p, pose, sticks, _outfit(p, looks, away, True), RIDER)


def _paint_far_rider(p: Painter, pose: _Pose, looks: tuple[float, ...], away: float, lean: float, seat: float) -> None:
    """A rider a few pixels wide: legs, body, head."""
    shirt, trousers, skin, helmet, _, _ = _outfit(p, looks, away, True)
    u, v, k = p.camera.spot(pose.lat - 0.1 * pose.sin, pose.y, pose.s)
    bent = lean * pose.sin * k
    broad = (0.3 + 0.16 * abs(pose.cos)) * k
    p.bar(u + bent, v - 0.35 * k, u, v - seat * k, 0.8 * broad, trousers, RIDER)
    p.bar(u, v - seat * k, u + bent, v - (seat + 0.58) * k, broad, shirt, RIDER)
    p.bar(u + bent, v - (seat + 0.64) * k, u + bent, v - (seat + 0.76) * k, 0.2 * k, skin, RIDER)
    p.bar(u + bent, v - (seat + 0.78) * k, u + bent, v - (seat + 0.86) * k, 0.24 * k, helmet, RIDER)


def paint_bicycle(
    p: Painter,
    lat: float,
    s: float,
    yaw: float,
    looks: tuple[float, ...],
    phase: float,
    ridden: bool,
    y: float = 0.0,
) -> None:
    """A bicycle, with its rider or parked."""
    away = max(s - p.camera.s, 1.0)
    pose = _Pose(lat, y, s, math.cos(yaw), math.sin(yaw))
    shade = p.light.facing(0, 0.3, -0.9)
    frame = _CLOTHES[int(looks[8] * len(_CLOTHES))]
    colours = [p.light.paint(c, away, shade) for c in (frame, (38.0, 36.0, 36.0), (150.0, 150.0, 150.0))]
    _paint_rings(p, pose, [(-0.52, 0.34), (0.54, 0.34)], 0.05, colours[1], BICYCLE)
    tube = 0.045
    if p.camera.focal / away < _FAR_SCALE:
        _paint_sticks(p, pose, [(0, 0.34, -0.52, 0, 0.82, 0.36, tube, tube, 0)], colours, BICYCLE)
        if ridden:
            _paint_rider(p, pose, looks, phase, away, 0.3, 0.95)
        return
    sticks: list[Stick] = [
        (0, 0.34, -0.52, 0, 0.3, -0.05, tube, tube, 0),
        (0, 0.3, -0.05, 0, 0.88, -0.2, tube, tube, 0),
        (0, 0.34, -0.52, 0, 0.78, -0.18, tube, tube, 0),
        (0, 0.78, -0.18, 0, 0.82, 0.36, tube, tube, 0),
        (0, 0.3, -0.05, 0, 0.72, 0.38, tube, tube, 0),
        (0, 0.34, 0.54, 0, 1.0, 0.36, tube, tube, 0),
        (-0.28, 1.02, 0.38, 0.28, 1.02, 0.38, tube, tube, 1),
        (0, 0.92, -0.32, 0, 0.92, -0.1, 0.1, 0.07, 1),
    ]
    _paint_sticks(p, pose, sticks, colours, BICYCLE)
    if ridden:
        _paint_rider(p, pose, looks, phase, away, 0.3, 0.95)


def paint_motorcycle(p: Painter, lat: float, s: float, yaw: float, looks: tuple[float, ...], ridden: bool) -> None:
    """A motorcycle or scooter, with its rider or parked."""
    away = max(s - p.camera.s, 1.0)
    pose = _Pose(lat, 0.0, s, math.cos(yaw), math.sin(yaw))
    shade = p.light.facing(0, 0.3, -0.9)
    body = _CLOTHES[2 + int(looks[8] * (len(_CLOTHES) - 2))]
    base: list[Colour] = [body, (34, 33, 33), (140, 140, 140), (40, 40, 215), (225, 240, 245)]
    colours = [p.light.paint(c, away, shade) for c in base]
    if p.light.night > 0.3:
        colours[3], colours[4] = p.light.glow((60, 50, 255), away), p.light.glow((220, 250, 255), away)
    _paint_rings(p, pose, [(-0.68, 0.32), (0.72, 0.32)], 0.15, colours[1], MOTORCYCLE)
    sticks: list[Stick] = [
        (0, 0.05, -0.7, 0, 0.6, -0.7, 0.16, 0.16, 1),
        (0, 0.32, -0.68, 0, 0.38, 0.0, 0.12, 0.2, 2),
        (0, 0.38, -0.15, 0, 0.42, 0.3, 0.36, 0.34, 1),
        (0, 0.32, 0.72, 0, 0.95, 0.45, 0.09, 0.11, 2),
        (0, 0.74, -0.85, 0, 0.78, -0.15, 0.24, 0.3, 1),
        (0, 0.68, -0.8, 0, 0.66, -0.3, 0.26, 0.26, 0),
        (0, 0.8, -0.1, 0, 0.86, 0.38, 0.34, 0.3, 0),
        (-0.36, 1.02, 0.4, 0.36, 1.02, 0.4, 0.06, 0.06, 1),
        (0, 0.74, -0.93, 0, 0.74, -0.96, 0.2, 0.2, 3),
        (0, 0.9, 0.56, 0, 0.92, 0.62, 0.24, 0.24, 4),
        (-0.36, 1.02, 0.4, -0.42, 1.2, 0.42, 0.05, 0.1, 1),
        (0.36, 1.02, 0.4, 0.42, 1.2, 0.42, 0.05, 0.1, 1),
    ]
    if pose.cos < 0:  # coming towards us: headlamp last, tail lamp hidden
        sticks[8], sticks[9] = sticks[0], sticks[9]
    else:
        sticks[9] = sticks[0]
        sticks.append((0, 0.74, -0.93, 0, 0.74, -0.96, 0.2, 0.2, 3))
    _paint_sticks(p, pose, sticks, colours, MOTORCYCLE)
    if ridden:
        _paint_rider(p, pose, looks, -0.4, away, 0.22, 0.82)
