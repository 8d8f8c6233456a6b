"""The PyTorch reference at several scales and mirrored (DeepLabv3 paper, section 4.2): what it could score at best.

An engine has no such form: it is compiled for one size, and it gives labels, which have no mean. It would take an
engine for each scale that returns its logits, at the cost of all of them together.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runtime.reference import Reference

__all__ = ["MultiScale"]


class MultiScale:
    """`reference` on each frame at `scales` (1 is its own size, above 1 larger), each also mirrored with `flip`."""

    def __init__(self, reference: Reference, scales: Sequence[float], flip: bool) -> None:
        self._reference, self.scales, self.flip = reference, tuple(scales), flip

    def segment(self, frame_bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Labels uint8 [H,W] of a frame uint8 [H,W,3]."""
        import torch

        from training.scales import mean_probabilities

        with torch.inference_mode():
            x = self._reference.normalised(frame_bgr)
            probabilities = mean_probabilities(self._reference.checkpoint.model, x, self.scales, self.flip)
            return np.asarray(probabilities[0].argmax(0).to(torch.uint8).numpy(), np.uint8)
