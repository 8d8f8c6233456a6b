"""Pictures of what a network makes of validation images: image, truth and prediction side by side."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from splitmerge.labels import IGNORE, LabelClass, colours_from_labels
from training.data import Dataset
from training.datasets.reading import Image
from training.evaluate import normalise, predict
from training.learning.validation import STRIDE
from training.networks.base import SegmentationNet
from training.networks.smp import SMP
from training.reduction import strides_of

__all__ = ["best_and_worst", "gallery", "spread"]

_TILE, _CAPTION, _MARGIN = 320, 18, 4
_FONT, _DARK, _BRIGHT = cv2.FONT_HERSHEY_SIMPLEX, (32, 32, 32), (235, 235, 235)


def gallery(
    model: SegmentationNet,
    validation: Dataset,
    indices: Sequence[int],
    scores: NDArray[np.float64],
    classes: tuple[LabelClass, ...],
) -> Image:
    """A row per image: image, truth, prediction; uint8 [H,W,3], blue-green-red. `scores` are the images' mIoU (0..1).

    Where there is no label, truth and prediction show the image, darkened. A Split-Merge Pooling network computes what
    it was scored on, every fourth row and column.
    """
    was_training = model.training
    model.eval()
    rows = [_row(model, validation, index, float(scores[index]), classes) for index in indices]
    model.train(was_training)
    return np.concatenate(rows)


def spread(count: int, most: int = 4) -> list[int]:
    """Up to `most` indices, evenly spread."""
    shown = min(count, most)
    return [(2 * index + 1) * count // (2 * shown) for index in range(shown)]


def best_and_worst(scores: NDArray[np.float64], most: int = 4) -> tuple[list[int], list[int]]:
    """Indices of the images of the highest scores, the best first, and of the lowest, the worst first."""
    order = [int(index) for index in np.argsort(scores, kind="stable") if np.isfinite(scores[index])]
    return order[::-1][:most], order[:most]


def _row(
    model: SegmentationNet, validation: Dataset, index: int, score: float, classes: tuple[LabelClass, ...]
) -> Image:
    image, truth = validation[index]
    stride = max(s for s in strides_of(model.windows) if s <= STRIDE) if isinstance(model, SMP) else 1
    device = next(model.parameters()).device
    predicted = predict(model, normalise(torch.from_numpy(np.array(image))[None].to(device)), stride)
    height = max(1, round(_TILE * truth.shape[0] / truth.shape[1]))
    small = np.asarray(cv2.resize(image, (_TILE, height), interpolation=cv2.INTER_AREA), np.uint8)
    tiles = [small, *(_painted(labels, truth, small, classes) for labels in (truth, predicted))]
    margin = np.full((height, _MARGIN, 3), _DARK, np.uint8)
    row = np.concatenate([tiles[0], margin, tiles[1], margin, tiles[2]], axis=1)
    caption = np.full((_CAPTION, row.shape[1], 3), _DARK, np.uint8)
    words = ("no label" if np.isnan(score) else f"mIoU {100 * score:.1f}", "truth", "prediction")
    for place, text in enumerate((f"image {index}: {words[0]}", *words[1:])):
        at = (place * (_TILE + _MARGIN) + 4, _CAPTION - 5)
        cv2.putText(caption, text, at, _FONT, 0.4, _BRIGHT, 1, cv2.LINE_AA)
    return np.concatenate([caption, row])


def _painted(labels: Image, truth: Image, image: Image, classes: tuple[LabelClass, ...]) -> Image:
    size = (image.shape[1], image.shape[0])
    nearest = np.asarray(cv2.resize(np.asarray(labels), size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    ignored = np.asarray(cv2.resize(np.asarray(truth), size, interpolation=cv2.INTER_NEAREST_EXACT)) == IGNORE
    painted = colours_from_labels(nearest, classes)
    painted[ignored] = image[ignored] // 4
    return painted
