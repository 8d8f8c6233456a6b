"""Frames to verify with: the synthetic street where it can be rendered, coloured blobs with noise otherwise."""

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["blob_frames", "sample_frames"]

_SEED = 2019


def sample_frames(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """The same frames every time: uint8 `[count,H,W,3]`, blue-green-red."""
    try:
        from training.streets import render_still
    except ImportError:
        return blob_frames(count, height, width)
    stills = [render_still(_SEED, index, (height, width))[0] for index in range(count)]
    return np.stack(stills)


def blob_frames(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """Ellipses of random place, size and colour over a gradient, with noise: uint8 `[count,H,W,3]`."""
    rng = np.random.default_rng(_SEED)
    frames = np.empty((count, height, width, 3), np.uint8)
    for frame in frames:
        frame[:] = np.linspace(rng.integers(0, 128, 3), rng.integers(128, 256, 3), height)[:, None]
        for _ in range(20):
            centre = int(rng.integers(width)), int(rng.integers(height))
            axes = int(rng.integers(2, 2 + width // 4)), int(rng.integers(2, 2 + height // 4))
            colour = tuple(int(part) for part in rng.integers(0, 256, 3))
            cv2.ellipse(frame, centre, axes, float(rng.integers(180)), 0, 360, colour, -1)
        noise = rng.normal(0, 12, frame.shape)
        frame[:] = np.clip(frame + noise, 0, 255).astype(np.uint8)
    return frames
