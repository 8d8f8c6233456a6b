"""Auxiliary losses on coarse maps, against soft targets (LDN paper, Eq. 1 and 2)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from splitmerge.labels import IGNORE

__all__ = ["AUXILIARY_WEIGHT", "soft_cross_entropy", "soft_targets"]

AUXILIARY_WEIGHT = 0.4
"""Of the mean auxiliary loss; the final logits' has the rest (section 5.1)."""


def soft_targets(labels: Tensor, window: int, num_classes: int) -> Tensor:
    """The share of each class among the pixels of each window: int64 `[N,H,W] -> float [N,classes,H/window,W/window]`.

    Eq. 2. Pixels that are ignored belong to no class, so that a window's shares sum to the share of its labelled
    pixels. H and W are multiples of the window.
    """
    n, height, width = labels.shape
    h, w = height // window, width // window
    windows = labels.reshape(n, h, window, w, window).transpose(2, 3).reshape(n * h * w, window * window)
    classes = windows.where(windows != IGNORE, num_classes)  # one column more, for what is ignored
    share = torch.full((), 1 / window**2, device=labels.device).expand(classes.shape)
    shares = torch.zeros(n * h * w, num_classes + 1, device=labels.device).scatter_add_(1, classes, share)
    return shares[:, :num_classes].reshape(n, h, w, num_classes).permute(0, 3, 1, 2)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy of logits `[N,classes,h,w]` against soft targets, which may be finer: they are averaged first.

    Eq. 1, where every pixel is labelled. Where some are not, a window counts by its share of labelled pixels.
    """
    targets = F.adaptive_avg_pool2d(targets, (logits.shape[-2], logits.shape[-1]))
    labelled = targets.sum().clamp(min=torch.finfo(targets.dtype).tiny)  # a crop may hold no label at all
    return -(targets * F.log_softmax(logits, 1)).sum() / labelled
