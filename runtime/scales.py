"""The PyTorch reference at several scales and mirrored (DeepLabv3 paper, section 4.2): what it could score at best.

The probabilities of all passes are averaged, each brought back to the frame's size and way round. An engine has no
such form: it is compiled for one size, and it gives labels, which have no mean. It would take an engine for each scale
that returns its logits, at the cost of all of them together.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runtime.reference import Reference, logits_of, uint8_from_labels

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MultiScale"]


class MultiScale:
    """`reference` on each frame at `scales` (1 is its own size, above 1 larger), each also mirrored with `flip`."""

    def __init__(self, reference: Reference, scales: Sequence[float], flip: bool) -> None:
        self._reference, self.scales, self.flip = reference, tuple(scales), flip

    def segment(self, frame_bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Labels uint8 [H,W] of a frame uint8 [H,W,3]."""
        import torch

        with torch.inference_mode():
            x = self._reference.normalised(frame_bgr)
            probabilities = sum(self._probabilities(x, scale) for scale in self.scales)
            assert isinstance(probabilities, torch.Tensor)
            return uint8_from_labels(probabilities.argmax(0))

    def _probabilities(self, x: "Tensor", scale: float) -> "Tensor":
        """`[classes,H,W]` of a normalised frame `[1,3,H,W]`, from one or two passes at this scale."""
        height, width = x.shape[-2:]
        scaled = _resized(x, max(1, round(height * scale)), max(1, round(width * scale)))
        logits = logits_of(self._reference.checkpoint.model, scaled)
        probabilities = _resized(logits, height, width).softmax(1)[0]
        if self.flip:
            mirrored = logits_of(self._reference.checkpoint.model, scaled.flip(-1)).flip(-1)
            probabilities += _resized(mirrored, height, width).softmax(1)[0]
        return probabilities


def _resized(x: "Tensor", height: int, width: int) -> "Tensor":
    import torch.nn.functional as F

    if x.shape[-2:] == (height, width):
        return x
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
