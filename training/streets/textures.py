"""Small textures made once per process: ground grain, clouds, foliage."""

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from training.streets.dice import keyed
from training.streets.painter import Bytes

__all__ = ["GROUND_PX_PER_M", "GROUND_TILE", "cloud_tile", "crowns", "grain_tile", "ground_tile"]

GROUND_TILE = 512  # pixels; wraps around
GROUND_PX_PER_M = 40.0


def _wrapped_noise(rng: np.random.Generator, size: int, sigma: float) -> npt.NDArray[np.float32]:
    """Smooth noise `[size,size]` of unit deviation that tiles without a seam."""
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    fy = np.fft.fftfreq(size)[:, None]
    fx = np.fft.rfftfreq(size)[None, :]
    spectrum *= np.exp(-2 * (np.pi * sigma) ** 2 * (fx * fx + fy * fy))
    noise = np.fft.irfft2(spectrum, s=(size, size))
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-9), np.float32)


@lru_cache(maxsize=1)
def ground_tile() -> Bytes:
    """uint8 `[512,512,3]` around 128: asphalt, paving slabs, grass."""
    rng = keyed(7001)
    n = GROUND_TILE
    asphalt = 0.6 * _wrapped_noise(rng, n, 1.0) + 1.0 * _wrapped_noise(rng, n, 40)
    slabs = 0.35 * _wrapped_noise(rng, n, 1.5) + 0.5 * _wrapped_noise(rng, n, 30)
    step = 32  # 0.8 m slabs
    tint = rng.standard_normal((n // step, n // step)).repeat(step, 0).repeat(step, 1)
    slabs += 0.55 * tint.astype(np.float32)
    slabs[::step] -= 2.6
    slabs[1::step] -= 1.6
    slabs[:, ::step] -= 2.6
    slabs[:, 1::step] -= 1.6
    grass = 1.1 * _wrapped_noise(rng, n, 1.2) + 1.2 * _wrapped_noise(rng, n, 12)
    grass += 0.9 * _wrapped_noise(rng, n, 50)
    stack: npt.NDArray[np.float32] = np.stack([asphalt * 12, slabs * 17, grass * 24], axis=-1)
    return np.asarray(np.clip(128 + stack, 0, 255).astype(np.uint8))


@lru_cache(maxsize=1)
def cloud_tile() -> Bytes:
    """uint8 `[256,512]`: cloud cover, high where thick."""
    rng = keyed(7002)
    noise = _wrapped_noise(rng, 512, 36) + 0.55 * _wrapped_noise(rng, 512, 14)
    noise += 0.25 * _wrapped_noise(rng, 512, 5)
    squeezed = cv2.resize(np.asarray(noise, np.float32), (512, 256), interpolation=cv2.INTER_AREA)
    cover: Bytes = np.clip(128 + 70 * np.asarray(squeezed, np.float32), 0, 255).astype(np.uint8)
    return cover


@lru_cache(maxsize=1)
def grain_tile() -> Bytes:
    """uint8 `[1280,2304,3]`: sensor noise around 128, deviation 32."""
    rng = keyed(7003)
    noise = rng.standard_normal((640, 1152, 3), dtype=np.float32)
    noise = np.tile(0.75 * noise + 0.5 * noise.mean(axis=2, keepdims=True), (2, 2, 1))
    return np.clip(128 + 32 * noise, 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def crowns() -> list[Bytes]:
    """Twelve leafy sprites, uint8 `[112,112,2]` (shade, cover): round, tall and ragged, with gaps."""
    return [_crown(k) for k in range(12)]


def _crown(k: int) -> Bytes:
    rng = keyed(7004, k)
    size = 112
    yy, xx = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    field = np.full((size, size), -1.0, np.float32)
    shade = np.zeros((size, size), np.float32)
    for _ in range(16 + 2 * k):
        angle, radius = rng.uniform(0, 2 * np.pi), 0.30 * np.sqrt(rng.uniform())
        cx, cy = radius * np.cos(angle), radius * np.sin(angle)
        r = rng.uniform(0.09, 0.19)
        lobe = 1 - ((xx - cx) ** 2 + (yy - cy) ** 2) / (r * r)
        closer = lobe > field
        lit = 0.55 - 0.45 * (yy - cy) / r - 0.22 * (xx - cx) / r - 0.5 * cy
        shade = np.where(closer, lit, shade)
        field = np.maximum(field, lobe)
    ragged = cv2.GaussianBlur(rng.standard_normal((size, size), dtype=np.float32), (0, 0), 1.6)
    leaves = cv2.GaussianBlur(rng.standard_normal((size, size), dtype=np.float32), (0, 0), 0.9)
    cover = field + 2.2 * ragged > (0.12 if k % 3 else 0.3)
    tone = np.clip(118 + 95 * (shade - 0.5) + 110 * leaves, 0, 255)
    return np.stack([tone, cover * 255], axis=-1).astype(np.uint8)
