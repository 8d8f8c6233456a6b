"""What the lens and the sensor do to the painted picture. Labels are not touched."""

import cv2
import numpy as np

from training.streets.camera import Camera
from training.streets.dice import Dice
from training.streets.painter import Bytes
from training.streets.textures import grain_tile

__all__ = ["develop"]

_RAMP = np.arange(256, dtype=np.float64) / 255


def develop(image: Bytes, camera: Camera, dice: Dice, exposure: float, night: float, motion: float) -> Bytes:
    """Soften, smear towards the vanishing point by `motion` (share of the radius), expose, add noise."""
    soft = cv2.GaussianBlur(image, (3, 3), dice.between(0.4, 0.62))
    if motion > 0:
        grow = 1 + motion
        u, v = camera.width / 2, camera.horizon
        warp = np.array([[grow, 0, u * (1 - grow)], [0, grow, v * (1 - grow)]])
        size = (camera.width, camera.height)
        moved = cv2.warpAffine(soft, warp, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        soft = cv2.addWeighted(soft, 0.5, moved, 0.5, 0)
    gamma = 1 / 1.08
    curve = np.clip(exposure * _RAMP, 0, None)
    shoulder = np.where(curve > 0.8, 0.8 + 0.2 * np.tanh((curve - 0.8) / 0.2), curve)
    table = np.clip(255 * shoulder**gamma, 0, 255).astype(np.uint8)
    soft = cv2.LUT(soft, table)
    noise = _grain(image.shape[0], image.shape[1], dice)
    strength = (0.06 + 0.08 * dice.unit()) * (1 + 1.2 * night)
    out = cv2.addWeighted(soft, 1.0, noise, strength, -128 * strength)
    return np.asarray(out, np.uint8)


def _grain(height: int, width: int, dice: Dice) -> Bytes:
    """A window of the grain tile; frames larger than the tile repeat it."""
    tile = grain_tile()
    rows, columns = tile.shape[0] // 2, tile.shape[1] // 2
    y, x = int(dice.unit() * rows), int(dice.unit() * columns)
    if y + height > tile.shape[0] or x + width > tile.shape[1]:
        repeats = (-(-(y + height) // rows), -(-(x + width) // columns), 1)
        tile = np.tile(tile[:rows, :columns], repeats)
    return tile[y : y + height, x : x + width]
