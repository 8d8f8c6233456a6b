"""Vehicle shapes in local coordinates: x right, y up, z forward, metres, origin on the ground in the middle.

A quad's corners go bottom left, bottom right, top right, top left as seen from outside, so its area on the
screen is negative exactly when it faces the camera.
"""

from dataclasses import dataclass, field

import numpy as np

from training.streets.camera import Floats

__all__ = ["GLASS", "HEAD", "SIGN", "TAIL", "Mesh", "mesh_for"]

# Roles index the palette in vehicles.py.
BODY, GLASS, DARK, TAIL, HEAD, PLATE, CARGO, METAL, SIGN, STRIPE, GREY = range(11)

Point = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Mesh:
    """Faces in painting order. `wheels_after`: the first face that is painted over the wheels."""

    quads: Floats  # [F,4,3]
    normals: Floats  # [F,3]
    roles: list[int]
    outline: list[bool]  # whether the face carries the label; the others lie inside one that does
    wheels: Floats  # [N,12,3]
    wheels_after: int


@dataclass(slots=True)
class _Builder:
    quads: list[tuple[Point, Point, Point, Point]] = field(default_factory=list)
    roles: list[int] = field(default_factory=list)
    outline: list[bool] = field(default_factory=list)
    wheels: list[Floats] = field(default_factory=list)
    wheels_after: int | None = None

    def face(self, a: Point, b: Point, c: Point, d: Point, role: int, outline: bool = True) -> int:
        self.quads.append((a, b, c, d))
        self.roles.append(role)
        self.outline.append(outline)
        return len(self.quads) - 1

    def hull(
        self,
        half: float,
        y0: float,
        y1: float,
        z0: float,
        z1: float,
        role: int,
        *,
        half_top: float | None = None,
        z0_top: float | None = None,
        z1_top: float | None = None,
        roles: tuple[int, int, int, int] | None = None,
    ) -> tuple[int, int, int, int]:
        """A box whose top may be narrower and shorter; returns faces (rear, front, right, left)."""
        w, t = half, half if half_top is None else half_top
        r, f = z0 if z0_top is None else z0_top, z1 if z1_top is None else z1_top
        rear, front, right, left = roles or (role, role, role, role)
        self.face((-t, y1, r), (t, y1, r), (t, y1, f), (-t, y1, f), role)
        i = self.face((w, y0, z0), (w, y0, z1), (t, y1, f), (t, y1, r), right)
        j = self.face((-w, y0, z1), (-w, y0, z0), (-t, y1, r), (-t, y1, f), left)
        k = self.face((-w, y0, z0), (w, y0, z0), (t, y1, r), (-t, y1, r), rear)
        m = self.face((w, y0, z1), (-w, y0, z1), (-t, y1, f), (t, y1, f), front)
        return k, m, i, j

    def panel(self, on: int, u0: float, v0: float, u1: float, v1: float, role: int) -> None:
        """A rectangle in a face's own coordinates, 0..1 from its bottom left corner."""
        a, b, c, d = (np.asarray(p) for p in self.quads[on])

        def at(u: float, v: float) -> Point:
            q = (1 - u) * (1 - v) * a + u * (1 - v) * b + u * v * c + (1 - u) * v * d
            return float(q[0]), float(q[1]), float(q[2])

        self.face(at(u0, v0), at(u1, v0), at(u1, v1), at(u0, v1), role, outline=False)

    def row(self, on: int, u0: float, v0: float, u1: float, v1: float, n: int, gap: float) -> None:
        """A row of `n` windows."""
        step = (u1 - u0) / n
        for k in range(n):
            self.panel(on, u0 + k * step + gap / 2, v0, u0 + (k + 1) * step - gap / 2, v1, GLASS)

    def axle(self, half: float, z: float, radius: float) -> None:
        """Two wheels, and their tread as seen from the ends."""
        angles = np.arange(12) * (2 * np.pi / 12)
        y, along = radius + radius * np.sin(angles), radius * np.cos(angles)
        x = np.full(12, half)
        self.wheels.append(np.stack([x, y, z + along], axis=1))
        self.wheels.append(np.stack([-x, y, z - along], axis=1))
        for x0, x1 in ((-half, -half + 0.26), (half - 0.26, half)):
            for a, b, at in ((x0, x1, z - 0.6 * radius), (x1, x0, z + 0.6 * radius)):
                self.face((a, 0, at), (b, 0, at), (b, 1.5 * radius, at), (a, 1.5 * radius, at), DARK)

    def done(self) -> Mesh:
        quads = np.array(self.quads)
        normals = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
        normals = -normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9)
        wheels = np.array(self.wheels) if self.wheels else np.zeros((0, 12, 3))
        last = len(self.quads) if self.wheels_after is None else self.wheels_after
        return Mesh(quads, normals, self.roles, self.outline, wheels, last)


def _lamps(b: _Builder, rear: int, front: int, v0: float, v1: float, plate: float, tall: float = 0.16) -> None:
    """Lamps in the corners and number plates, `tall` of the face's height."""
    for u0, u1 in ((0.03, 0.2), (0.8, 0.97)):
        b.panel(rear, u0, v0, u1, v1, TAIL)
        b.panel(front, u0, v0, u1, v1, HEAD)
    for face, at in ((rear, plate), (front, max(0.02, plate - 0.1))):
        b.panel(face, 0.38, at, 0.62, at + tall, PLATE)


def _car(variant: int) -> Mesh:
    """Hatchback, saloon, estate, off-roader, van."""
    half, long, waist, top = (
        (0.86, 2.0, 0.88, 1.46), (0.89, 2.3, 0.88, 1.43), (0.89, 2.3, 0.9, 1.5),
        (0.94, 2.3, 1.02, 1.74), (0.95, 2.45, 1.05, 1.95),
    )[variant]  # fmt: skip
    z0, z1, z0_top, z1_top = (
        (-1.95, 1.05, -1.55, 0.35), (-1.75, 1.05, -0.95, 0.2), (-2.25, 1.05, -1.9, 0.25),
        (-2.25, 1.1, -1.95, 0.5), (-2.42, 1.75, -2.3, 1.05),
    )[variant]  # fmt: skip
    b = _Builder()
    b.axle(half - 0.02, -0.62 * long, 0.32)
    b.axle(half - 0.02, 0.64 * long, 0.32)
    b.hull(half - 0.12, 0.16, 0.4, -long + 0.15, long - 0.15, DARK)
    rear, front, right, left = b.hull(half, 0.3, waist, -long, long, BODY, z0_top=-long + 0.06, z1_top=long - 0.12)
    b.panel(rear, 0.0, 0.0, 1.0, 0.24, DARK)
    b.panel(front, 0.0, 0.0, 1.0, 0.22, DARK)
    b.panel(front, 0.25, 0.45, 0.75, 0.72, DARK)
    for side in (right, left):
        b.panel(side, 0.02, 0.0, 0.98, 0.16, DARK)
        b.panel(side, 0.5, 0.12, 0.506, 0.98, DARK)
    _lamps(b, rear, front, 0.55, 0.85, 0.42)
    b.wheels_after = len(b.quads)
    glass = b.hull(half - 0.04, waist, top, z0, z1, BODY, half_top=half - 0.2, z0_top=z0_top, z1_top=z1_top)
    b.panel(glass[0], 0.06, 0.12, 0.94, 0.88, GLASS)
    b.panel(glass[1], 0.04, 0.08, 0.96, 0.92, GLASS)
    rows = 1 if variant == 4 else 2
    b.row(glass[2], 0.06 if rows == 2 else 0.55, 0.12, 0.93, 0.9, rows, 0.03)
    b.row(glass[3], 0.07, 0.12, 0.94 if rows == 2 else 0.45, 0.9, rows, 0.03)
    return b.done()


def _truck(variant: int) -> Mesh:
    """Box lorry, tarpaulin with stripe, tipper, tanker-like low body."""
    b = _Builder()
    top = (3.5, 3.3, 2.4, 2.7)[variant]
    for z in (-2.9, -1.9, 2.9):
        b.axle(1.2, z, 0.48)
    b.hull(0.95, 0.45, 0.95, -3.95, 2.2, DARK)
    cab = b.hull(1.2, 0.5, 2.75, 2.25, 4.05, BODY, half_top=1.15, z1_top=3.85)
    load = CARGO if variant != 2 else STRIPE
    rear, front, right, left = b.hull(1.25, 1.0, top, -4.0, 2.0, load)
    if variant == 2:
        b.row(right, 0.02, 0.08, 0.98, 0.1, 1, 0)
    for side in (right, left):
        posts = 5 if variant in (1, 2) else 2
        for k in range(posts + 1):
            b.panel(side, k / posts * 0.985, 0, k / posts * 0.985 + 0.015, 1, GREY)
        b.panel(side, 0, 0, 1, 0.04, GREY)
        if variant == 0:
            b.panel(side, 0.2, 0.35, 0.8, 0.6, BODY)
        if variant == 1:
            b.panel(side, 0, 0.62, 1, 0.78, STRIPE)
    b.panel(rear, 0.49, 0.02, 0.51, 0.98, GREY)
    b.panel(rear, 0.03, 0.03, 0.06, 0.97, METAL)
    b.panel(rear, 0.94, 0.03, 0.97, 0.97, METAL)
    bumper = b.hull(1.2, 0.5, 0.85, -4.05, -3.9, DARK)
    _lamps(b, bumper[0], cab[1], 0.25, 0.8, 0.2, 0.14)
    b.panel(cab[1], 0.05, 0.52, 0.95, 0.9, GLASS)
    b.panel(cab[1], 0.2, 0.2, 0.8, 0.42, DARK)
    b.panel(cab[2], 0.45, 0.52, 0.92, 0.88, GLASS)
    b.panel(cab[3], 0.08, 0.52, 0.55, 0.88, GLASS)
    b.panel(front, 0, 0, 1, 0.1, GREY)
    return b.done()


def _bus(variant: int) -> Mesh:
    """City bus, coach, double-decker."""
    b = _Builder()
    top = (3.0, 3.35, 4.3)[variant]
    for z in (-3.3, 3.4):
        b.axle(1.26, z, 0.48)
    b.hull(1.1, 0.2, 0.5, -5.4, 5.4, DARK)
    rear, front, right, left = b.hull(1.27, 0.34, top, -5.75, 5.75, BODY, half_top=1.22)
    decks = ((0.36, 0.8),) if variant != 2 else ((0.2, 0.43), (0.62, 0.86))
    for v0, v1 in decks:
        b.row(right, 0.02, v0, 0.98, v1, 8, 0.012)
        b.row(left, 0.02, v0, 0.98, v1, 8, 0.012)
        b.panel(rear, 0.1, v0 + 0.08, 0.9, v1, GLASS)
        b.panel(front, 0.04, v0 - (0.08 if variant != 2 else 0.02), 0.96, v1, GLASS)
    for side, doors in ((right, ((0.88, 0.96), (0.5, 0.58))), (left, ())):
        b.panel(side, 0, 0.02, 1, 0.09, GREY)
        b.panel(side, 0, 0.14, 1, 0.2 if variant == 2 else 0.24, STRIPE)
        for u0, u1 in doors:
            b.panel(side, u0, 0.03, u1, decks[0][1], GREY)
            b.panel(side, u0 + 0.006, 0.07, u1 - 0.006, decks[0][1] - 0.03, GLASS)
    b.panel(front, 0.15, 0.87, 0.85, 0.96, SIGN)
    b.panel(rear, 0.3, 0.84, 0.7, 0.92, SIGN)
    b.panel(rear, 0.15, 0.06, 0.85, 0.24, GREY)
    _lamps(b, rear, front, 0.08, 0.18, 0.09, 0.05)
    return b.done()


def _tram(variant: int, end: int) -> Mesh:
    """One module of a tram; `end` bit 0: has the tail, bit 1: has the nose."""
    b = _Builder()
    tail, nose = bool(end & 1), bool(end & 2)
    z0, z1 = -4.6, 4.6
    b.hull(0.9, 0.1, 0.5, z0 + 1.2, z1 - 1.2, DARK)
    b.hull(1.05, 0.4, 3.2, z0 - 0.2, z1 + 0.2, DARK)
    rear, front, right, left = b.hull(
        1.22, 0.3, 3.4, z0, z1, BODY,
        half_top=1.14, z0_top=z0 + (0.7 if tail else 0), z1_top=z1 - (0.7 if nose else 0),
        roles=(BODY if tail else DARK, BODY if nose else DARK, BODY, BODY),
    )  # fmt: skip
    for side in (right, left):
        b.panel(side, 0, 0.42, 1, 0.84, DARK)
        b.row(side, 0.01, 0.45, 0.99, 0.81, 5, 0.015)
        b.panel(side, 0, 0.0, 1, 0.12, GREY)
        b.panel(side, 0, 0.3 if variant else 0.2, 1, 0.38 if variant else 0.28, STRIPE)
        for u in (0.3, 0.62):
            b.panel(side, u, 0.08, u + 0.1, 0.84, METAL)
            b.panel(side, u + 0.008, 0.14, u + 0.046, 0.8, GLASS)
            b.panel(side, u + 0.054, 0.14, u + 0.092, 0.8, GLASS)
    for face, shown in ((rear, tail), (front, nose)):
        if shown:
            b.panel(face, 0.06, 0.4, 0.94, 0.82, GLASS)
            b.panel(face, 0.25, 0.85, 0.75, 0.95, SIGN)
            b.panel(face, 0, 0.0, 1, 0.1, GREY)
            b.panel(face, 0.42, 0.1, 0.58, 0.34, STRIPE)
    _lamps(b, rear, front, 0.16, 0.26, 0.02, 0.04) if tail or nose else None
    b.hull(0.9, 3.4, 3.65, -2.5, 2.5, METAL)
    return b.done()


def mesh_for(kind: str, variant: int, end: int) -> Mesh:
    """The shape of a `car`, `truck`, `bus` or `tram`."""
    if kind == "car":
        return _car(variant)
    if kind == "truck":
        return _truck(variant)
    return _bus(variant) if kind == "bus" else _tram(variant, end)
