"""Scores of a network on validation images, shared among the processes."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from training.data import Dataset
from training.datasets.samples import Picked
from training.evaluate import confusion_of
from training.learning.processes import Processes
from training.metrics import mean_iou
from training.networks.base import SegmentationNet

__all__ = ["STRIDE", "Scores", "scores_of"]

STRIDE = 4
"""A quarter of the rows and columns estimates the mIoU of all pixels at a sixteenth of the time."""


@dataclass(frozen=True)
class Scores:
    """Mean IoU (0..1) of all images together, and of each by itself: float64 `[N]`, NaN where nothing is labelled."""

    miou: float
    of_images: NDArray[np.float64]


def scores_of(model: SegmentationNet, validation: Dataset, processes: Processes) -> Scores:
    """Score every image, each process every so many-th; all get the same result."""
    total = np.zeros((model.num_classes, model.num_classes), np.int64)
    of_images = np.zeros(len(validation))
    for index in range(processes.rank, len(validation), processes.count):
        confusion = confusion_of(model, Picked(validation, [index]), stride=STRIDE)
        of_images[index] = mean_iou(confusion) if confusion.any() else np.nan
        total += confusion
    counts = processes.sum(torch.from_numpy(total)).numpy()
    return Scores(mean_iou(counts), processes.sum(torch.from_numpy(of_images)).numpy())
