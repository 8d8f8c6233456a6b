"""A dashcam on a bending street: street coordinates to pixels.

Street coordinates are metres: `lat` to the right of the centre line, `y` up from the asphalt, `s` along
the street. The street bends as a parabola around the camera, which turns with it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["FAR", "NEAR", "SHIFT", "Camera", "Floats", "Ints"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

NEAR = 0.7  # metres; nothing nearer is drawn, points behind are pulled here
FAR = 170.0  # metres; beyond it the skyline takes over
SHIFT = 4  # fractional bits of OpenCV's fixed-point coordinates


@dataclass(frozen=True, slots=True)
class Camera:
    """Where the camera is and how it looks. `focal` and `horizon` are pixels, the rest metres."""

    height: int
    width: int
    focal: float
    horizon: float
    lat: float
    up: float
    s: float
    curve: float  # 1/m: lateral displacement is curve / 2 * z**2
    yaw: float  # tangent of the angle to the street's direction

    def pixels(self, points: Floats) -> tuple[Floats, Floats]:
        """(lat, y, s) `[..., 3]` to pixels (u, v) `[..., 2]` and depth `[...]` in metres."""
        z = np.maximum(points[..., 2] - self.s, NEAR)
        scale = self.focal / z
        out = np.empty((*points.shape[:-1], 2))
        # scale * bend = focal * (curve / 2 * z - yaw)
        u = scale * (points[..., 0] - self.lat) + (0.5 * self.focal * self.curve) * z
        np.add(u, 0.5 * self.width - self.focal * self.yaw, out=out[..., 0])
        np.add(scale * (self.up - points[..., 1]), self.horizon, out=out[..., 1])
        return out, z

    def fixed(self, points: Floats) -> Ints:
        """(lat, y, s) `[..., 3]` to OpenCV fixed-point pixels `[..., 2]`."""
        return fixed_from_pixels(self.pixels(points)[0])

    def spot(self, lat: float, y: float, s: float) -> tuple[float, float, float]:
        """One point's (u, v) and its scale in pixels per metre."""
        z = max(s - self.s, NEAR)
        scale = self.focal / z
        bend = z * (0.5 * self.curve * z - self.yaw)
        return (
            0.5 * self.width + scale * (lat - self.lat + bend),
            self.horizon + scale * (self.up - y),
            scale,
        )

    def sees(self, lat: float, s: float, radius: float) -> bool:
        """Whether a thing of that radius can be in the picture."""
        z = s - self.s
        if z + radius < NEAR or z > FAR:
            return False
        u, _, scale = self.spot(lat, 0.0, s)
        return -radius * scale < u < self.width + radius * scale


def fixed_from_pixels(uv: Floats) -> Ints:
    """Pixels `[..., 2]` to OpenCV fixed point; pixel centres are at integers."""
    return (uv * (1 << SHIFT) + 0.5).astype(np.int32)
