"""Scores of label maps against ground truth: IoU per class, boundary IoU. NumPy and OpenCV only.

Everything is counted in int64 tables that add up over images, so a score over a data set needs the memory of one image:

    confusion = sum(confusion_matrix(prediction, target, 19) for ...)
    boundary = sum(boundary_counts(prediction, target, 19) for ...)
    iou(confusion), mean_iou(confusion), boundary_iou(boundary)

Label maps are uint8 [H,W]. Pixels whose target is `ignore_index` are left out, whatever is predicted there.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from splitmerge.errors import InputError
from splitmerge.labels import IGNORE

__all__ = [
    "boundary_counts",
    "boundary_distance",
    "boundary_iou",
    "category_iou",
    "confusion_matrix",
    "iou",
    "mean_iou",
    "mean_of_known",
]

BOUNDARY_RATIO = 0.005
"""Distance d over the image's diagonal: Cheng et al. take 0.5 % for Cityscapes' large frames (2 % for COCO)."""

Labels = NDArray[np.uint8]


def confusion_matrix(
    prediction: Labels, target: Labels, num_classes: int, ignore_index: int = IGNORE
) -> NDArray[np.int64]:
    """Count pixels by truth (row) and prediction (column): int64 [C,C].

    Raises InputError where the shapes differ or an id is neither a class nor an ignored target.
    """
    predicted, truth = _scored(prediction, target, num_classes, ignore_index)
    cells = truth.astype(np.intp) * num_classes + predicted
    counts = np.bincount(cells, minlength=num_classes * num_classes)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection over union of each class, 0..1: float64 [C]; NaN for a class neither present nor predicted."""
    hits = np.diagonal(confusion)
    return _ratio(hits, confusion.sum(axis=0) + confusion.sum(axis=1) - hits)


def category_iou(confusion: NDArray[np.int64], category_of: Sequence[int]) -> NDArray[np.float64]:
    """IoU of groups of classes, as the Cityscapes benchmark scores categories: a class taken for another of its own
    category is right. `category_of[i]` is the category of class i, from 0 on; float64, one for each category.
    """
    members = np.eye(max(category_of) + 1, dtype=np.int64)[list(category_of)]
    return iou(members.T @ confusion @ members)


def mean_iou(confusion: NDArray[np.int64]) -> float:
    """Mean of `iou` over the classes that have one, as the Cityscapes benchmark averages; NaN where none has."""
    return mean_of_known(iou(confusion))


def mean_of_known(scores: NDArray[np.float64]) -> float:
    """Mean of the scores that are not NaN; NaN where none is."""
    known = scores[~np.isnan(scores)]
    return float(known.mean()) if known.size else math.nan


def boundary_distance(height: int, width: int) -> int:
    """Boundary IoU's distance d in pixels: 0.5 % of the diagonal, rounded, at least 1 (11 at 1024x2048)."""
    return max(1, round(BOUNDARY_RATIO * math.hypot(height, width)))


def boundary_counts(
    prediction: Labels, target: Labels, num_classes: int, ignore_index: int = IGNORE, distance: int | None = None
) -> NDArray[np.int64]:
    """Intersection (row 0) and union (row 1) in pixels of the boundary bands of each class: int64 [2,C].

    Cheng et al., Boundary IoU, CVPR 2021: a class mask's band are its pixels within `distance` of its contour. As in
    the authors' evaluation the distance is chessboard distance to the nearest pixel outside the mask, and what lies
    beyond the image is outside, so that a mask cut by the image border has a contour there. Ignored pixels are outside
    every mask of truth and prediction alike: a perfect prediction scores 1 whatever it says there.

    Errors as in `confusion_matrix`. `distance` in pixels, `boundary_distance` of the image where None.
    """
    _scored(prediction, target, num_classes, ignore_index)
    d = boundary_distance(*target.shape) if distance is None else distance
    ignored = target == ignore_index
    masked = np.where(ignored, np.uint8(ignore_index), prediction)
    near_predicted, near_truth = _band(masked, d) & ~ignored, _band(target, d) & ~ignored
    both = near_predicted & near_truth & (masked == target)
    common = np.bincount(target[both], minlength=num_classes)
    either = np.bincount(target[near_truth], minlength=num_classes)
    either = either + np.bincount(masked[near_predicted], minlength=num_classes) - common
    return np.stack([common, either]).astype(np.int64)


def boundary_iou(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Boundary IoU of each class from summed `boundary_counts`, 0..1: float64 [C]; NaN for one that never occurs."""
    return _ratio(counts[0], counts[1])


def _band(labels: Labels, distance: int) -> NDArray[np.bool_]:
    # A pixel lies deep inside its class's mask where its whole neighbourhood has its label, that is, where the smallest
    # and the largest label around it are equal. Two passes so serve all classes, where the masks one by one take 2C.
    # Widened to 16 bits, so that the image's outside can have a label that no pixel has.
    wide = labels.astype(np.uint16)
    box = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    smallest = cv2.erode(wide, box, borderType=cv2.BORDER_CONSTANT, borderValue=0xFFFF)
    largest = cv2.dilate(wide, box, borderType=cv2.BORDER_CONSTANT, borderValue=0xFFFF)
    return np.not_equal(smallest, largest)


def _scored(prediction: Labels, target: Labels, num_classes: int, ignore_index: int) -> tuple[Labels, Labels]:
    """The predictions and targets of the pixels that count, both flat, checked."""
    _check_shapes(prediction, target)
    counted = target != ignore_index
    predicted, truth = prediction[counted], target[counted]
    for name, ids in (("target", truth), ("prediction", predicted)):
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < num_classes:
            wrong = int(ids.max()) if int(ids.max()) >= num_classes else int(ids.min())
            raise InputError(
                f"The {name} holds label {wrong}: labels of {num_classes} classes are 0 to {num_classes - 1}, "
                f"and {ignore_index} in the target for pixels to ignore."
            )
    return predicted, truth


def _check_shapes(a: Labels, b: Labels) -> None:
    if a.shape != b.shape or a.ndim != 2:
        raise InputError(f"Label maps of shapes {a.shape} and {b.shape} cannot be compared: give one shape [H,W].")


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    out: NDArray[np.float64] = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return out
