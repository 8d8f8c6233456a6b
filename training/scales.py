"""Probabilities averaged over scales and mirrored images (DeepLabv3 paper, section 4.2)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from training.grids import logits_of
from training.networks.base import SegmentationNet

__all__ = ["mean_probabilities"]


def mean_probabilities(model: SegmentationNet, images: Tensor, scales: Sequence[float], flip: bool) -> Tensor:
    """The mean of the passes' probabilities, `[N,classes,H,W]`, for normalised images `[N,3,H,W]`.

    One pass at each scale (1 is the images' own size, above 1 larger), and with `flip` another of the mirrored images;
    the logits of each are brought back to the images' size and way round.
    """
    passes = [(scale, mirrored) for scale in scales for mirrored in ((False, True) if flip else (False,))]
    total = _probabilities(model, images, *passes[0])
    for scale, mirrored in passes[1:]:
        total += _probabilities(model, images, scale, mirrored)
    return total.div_(len(passes))


def _probabilities(model: SegmentationNet, images: Tensor, scale: float, mirrored: bool) -> Tensor:
    height, width = images.shape[-2:]
    scaled = _resized(images, max(1, round(height * scale)), max(1, round(width * scale)))
    logits = logits_of(model, scaled.flip(-1)).flip(-1) if mirrored else logits_of(model, scaled)
    return _resized(logits, height, width).softmax(1)


def _resized(x: Tensor, height: int, width: int) -> Tensor:
    if x.shape[-2:] == (height, width):
        return x
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
