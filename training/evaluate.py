"""Scoring a network on labelled images, in PyTorch."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.checkpoint import IMAGENET_MEAN, IMAGENET_STD
from training.data import Dataset
from training.grids import labels_of
from training.metrics import confusion_matrix
from training.networks.base import SegmentationNet
from training.networks.smp import SMP
from training.reduction import strides_of

__all__ = ["confusion_of", "normalise", "predict"]

Triple = tuple[float, float, float]


def normalise(frames: Tensor, mean: Triple = IMAGENET_MEAN, std: Triple = IMAGENET_STD) -> Tensor:
    """Frames uint8 `[N,H,W,3]` BGR to the networks' float `[N,3,H,W]` RGB, in channels-last memory.

    `mean` and `std` are red, green, blue in units of 0..1.
    """
    rgb = frames.flip(-1).float() / 255
    mean_rgb, std_rgb = torch.tensor(mean, device=frames.device), torch.tensor(std, device=frames.device)
    return ((rgb - mean_rgb) / std_rgb).permute(0, 3, 1, 2)


@torch.inference_mode()
def predict(model: SegmentationNet, image: Tensor, stride: int = 1) -> NDArray[np.uint8]:
    """Labels uint8 `[H,W]` of one normalised image `[1,3,H,W]`.

    With a `stride` of 2 to 32 a Split-Merge Pooling network computes only so much less (`training.grids`), in bounded
    memory with any. Raises ValueError where the network's windows do not make that stride.
    """
    return _uint8(labels_of(model, image, stride)[0])


def confusion_of(
    model: SegmentationNet,
    images: Dataset,
    stride: int = 1,
) -> NDArray[np.int64]:
    """Confusion matrix of the network in evaluation mode over labelled images.

    With a `stride`, a Split-Merge Pooling network is scored on the pixels it computes alone: every stride-th row and
    column, an unbiased sample of its score at full density. Where its windows do not make that stride, the next smaller
    one is taken.
    """
    if isinstance(model, SMP):
        stride = max(possible for possible in strides_of(model.windows) if possible <= stride)
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    total = np.zeros((model.num_classes, model.num_classes), np.int64)
    for index in range(len(images)):
        frame, truth = images[index]
        predicted = predict(model, normalise(torch.from_numpy(np.array(frame))[None].to(device)), stride)
        computed = np.s_[stride // 2 :: stride, stride // 2 :: stride] if isinstance(model, SMP) else np.s_[:]
        total += confusion_matrix(predicted[computed], truth[computed], model.num_classes)
    model.train(was_training)
    return total


def _uint8(labels: Tensor) -> NDArray[np.uint8]:
    return np.asarray(labels.cpu().numpy(), np.uint8)
