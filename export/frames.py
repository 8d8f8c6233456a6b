"""Frames to verify with: stills of the synthetic street."""

import numpy as np
from numpy.typing import NDArray

from training.streets import render_still

__all__ = ["sample_frames"]

_SEED = 2019


def sample_frames(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """The same frames every time: uint8 `[count,H,W,3]`, blue-green-red, of 32x32 pixels or more."""
    return np.stack([render_still(_SEED, index, (height, width))[0] for index in range(count)])
