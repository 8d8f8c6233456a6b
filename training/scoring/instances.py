"""Instance-weighted IoU (iIoU), as the Cityscapes benchmark defines it (Cordts et al. 2016, section 4.2).

IoU counts pixels, and so favours large instances. Here a pixel of an instance weighs what an instance of its class has
on average over what that one has: iIoU = iTP / (iTP + FP + iFN), where false positives are counted as ever.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splitmerge.errors import InputError
from splitmerge.labels import CITYSCAPES, IGNORE
from training.datasets.cityscapes import AVERAGE_PIXELS, CATEGORY_OF, TRAIN_ID_OF

__all__ = ["InstanceCounts", "InstanceMap"]

_HAS_INSTANCES = np.array([entry.name in AVERAGE_PIXELS for entry in CITYSCAPES])
_CATEGORY_OF = np.array(CATEGORY_OF)
_CROWD = 1000  # ids up to here are of pixels that belong to no single instance


@dataclass(frozen=True)
class InstanceMap:
    """The instances of an image: `ids` uint16 `[H,W]`, a label id times 1,000 and a number, elsewhere less than that.

    `average_pixels` is how many an instance of each class has in the data set, by name; `file` is where they are from.
    """

    ids: NDArray[np.uint16]
    average_pixels: Mapping[str, float]
    file: object = "The file"


class InstanceCounts:
    """Weighted pixels of all instances, in the right class or category or not: adds up over images.

    Float64 `[2,19]` and `[2,7]`: hit (row 0) and missed (row 1).
    """

    def __init__(self) -> None:
        self.classes = np.zeros((2, len(CITYSCAPES)))
        self.categories = np.zeros((2, max(CATEGORY_OF) + 1))

    def add(self, prediction: NDArray[np.uint8], instances: InstanceMap) -> None:
        """Count an image: predicted train ids `[H,W]`, and its instances.

        Raises InputError, with their file's name, for instances of another size and for those of what has none.
        """
        ids, file = instances.ids, instances.file
        if ids.shape != prediction.shape:
            raise InputError(
                f"{file} is {ids.shape[0]}x{ids.shape[1]} and its image "
                f"{prediction.shape[0]}x{prediction.shape[1]} (height x width): they must be of one size."
            )
        within = ids > _CROWD
        present, index_of, pixels = np.unique(ids[within], return_inverse=True, return_counts=True)
        train_ids = np.array([_train_id(int(value), file) for value in present], np.intp)
        truth, predicted = train_ids[index_of], prediction[within]
        known = train_ids != IGNORE
        sizes = np.array([instances.average_pixels.get(entry.name, np.nan) for entry in CITYSCAPES])
        right = predicted == truth
        right_kind = _category(predicted) == _category(truth)
        for counts, of, hits in (
            (self.classes, train_ids, right),
            (self.categories, _category(train_ids), right_kind),
        ):
            hit = np.bincount(index_of, hits, len(present))
            weight = sizes[np.where(known, train_ids, 0)] / pixels
            np.add.at(counts[0], of[known], (hit * weight)[known])
            np.add.at(counts[1], of[known], ((pixels - hit) * weight)[known])

    def iou(self, confusion: NDArray[np.int64]) -> NDArray[np.float64]:
        """iIoU of each of the 19 classes, 0..1, beside their confusion matrix; NaN where classes have no instances."""
        return _iou(self.classes, confusion, _HAS_INSTANCES)

    def category_iou(self, confusion: NDArray[np.int64]) -> NDArray[np.float64]:
        """iIoU of each of the seven categories; NaN but for human and vehicle, whose classes all have instances."""
        members = np.eye(self.categories.shape[1], dtype=np.int64)[_CATEGORY_OF]
        return _iou(self.categories, members.T @ confusion @ members, (~_HAS_INSTANCES).astype(int) @ members == 0)


def _iou(
    counts: NDArray[np.float64], confusion: NDArray[np.int64], has_instances: NDArray[np.bool_]
) -> NDArray[np.float64]:
    hit, missed = counts
    union = hit + missed + confusion.sum(axis=0) - np.diagonal(confusion)
    found = np.divide(hit, union, out=np.full(len(hit), np.nan), where=union > 0)
    return np.where(has_instances, found, np.nan)


def _category(train_ids: NDArray[np.integer]) -> NDArray[np.intp]:
    """The category of each train id; IGNORE of what has none."""
    found: NDArray[np.intp] = np.append(_CATEGORY_OF, np.full(IGNORE + 1 - len(_CATEGORY_OF), IGNORE))[train_ids]
    return found


def _train_id(instance: int, file: object) -> int:
    train_id = TRAIN_ID_OF.get(instance // _CROWD)
    if train_id is None or (train_id != IGNORE and not _HAS_INSTANCES[train_id]):
        what = "no label" if train_id is None else f"{CITYSCAPES[train_id].name}, which has no instances"
        raise InputError(f"{file} holds the instance {instance} of {what}: take the released files.")
    return train_id
