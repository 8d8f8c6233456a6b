"""Does the engine still score what the PyTorch reference scores? Both run on the same labelled images.

Counts are kept, not images: memory does not grow with the data set.
"""

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from runtime.examples import Example, Worst, name_of
from runtime.pipeline import Segmenter
from splitmerge.errors import InputError
from splitmerge.labels import LabelClass
from training.data import Dataset
from training.metrics import boundary_counts, boundary_iou, confusion_matrix, iou, mean_iou, mean_of_known

__all__ = ["Comparison", "Score", "compare"]

Labels = NDArray[np.uint8]


class Score:
    """Running counts of one segmenter against ground truth."""

    def __init__(self, num_classes: int) -> None:
        self.confusion = np.zeros((num_classes, num_classes), np.int64)
        self.boundary = np.zeros((2, num_classes), np.int64)
        self.seconds: list[float] = []

    def add(self, segmenter: Segmenter, image_bgr: NDArray[np.uint8], truth: Labels) -> Labels:
        """Segment one image, count it and give the labels."""
        began = time.perf_counter()
        labels = segmenter.segment(image_bgr)
        self.seconds.append(time.perf_counter() - began)
        classes = len(self.confusion)
        self.confusion += confusion_matrix(labels, truth, classes)
        self.boundary += boundary_counts(labels, truth, classes)
        return labels

    @property
    def ms_per_frame(self) -> float:
        """Median time of one image, in milliseconds: the first one, which warms up, does not count for more."""
        return 1000 * float(np.median(self.seconds))

    @property
    def iou(self) -> NDArray[np.float64]:
        """IoU of each class, 0..1, NaN for one that never occurs."""
        return iou(self.confusion)

    @property
    def miou(self) -> float:
        """Mean IoU, 0..1."""
        return mean_iou(self.confusion)

    @property
    def boundary_miou(self) -> float:
        """Mean boundary IoU, 0..1."""
        return mean_of_known(boundary_iou(self.boundary))


@dataclass
class Comparison:
    """What a comparison counted. `agreeing` of `pixels` have the same label from engine and reference.

    `multi_scale` is the reference at several scales, where that was asked for.
    """

    classes: tuple[LabelClass, ...]
    reference: Score
    engine: Score
    multi_scale: Score | None = None
    images: int = 0
    agreeing: int = 0
    pixels: int = 0
    examples: list[Example] = field(default_factory=list)
    worst: Worst = field(default_factory=lambda: Worst(0))

    @property
    def pixel_agreement(self) -> float:
        """Share of pixels on which engine and reference agree, 0..1, ignored ones included."""
        return self.agreeing / self.pixels

    @property
    def drop_points(self) -> float:
        """By how many points of mIoU (0..100) the engine lies below the reference; negative where it lies above.

        Over the classes that both have an IoU for. A class that is absent from the ground truth gets an IoU (of 0) from
        a single pixel that is wrongly given to it; as long as only one of the two does so, that pixel would move the
        mean by whole points, and it is counted against the class that it was taken from anyhow.
        """
        return 100 * mean_of_known(self.reference.iou - self.engine.iou)

    def to_json(self) -> dict[str, Any]:
        """The contents of compare.json. Shares are 0..1; a class that never occurs has null."""
        return {
            "reference": self._score_json(self.reference),
            "engine": self._score_json(self.engine),
            "miou_drop_points": _number(self.drop_points),
            "pixel_agreement": self.pixel_agreement,
            "pixels": self.pixels,
            "pixels_differing": self.pixels - self.agreeing,
            "boundary_iou": {
                "reference": _number(self.reference.boundary_miou),
                "engine": _number(self.engine.boundary_miou),
            },
            "images": self.images,
        } | ({"multi_scale": self._score_json(self.multi_scale)} if self.multi_scale else {})

    def _score_json(self, score: Score) -> dict[str, Any]:
        names = [entry.name for entry in self.classes]
        return {
            "miou": _number(score.miou),
            "iou": dict(zip(names, map(_number, score.iou), strict=True)),
            "boundary_iou": dict(zip(names, map(_number, boundary_iou(score.boundary)), strict=True)),
            "ms_per_frame": round(score.ms_per_frame, 3),
        }


def compare(
    reference: Segmenter,
    engine: Segmenter,
    dataset: Dataset,
    classes: tuple[LabelClass, ...],
    examples: int = 0,
    progress: bool = False,
    multi_scale: Segmenter | None = None,
    worst: int = 0,
) -> Comparison:
    """Run both over every image of `dataset` and keep `examples` of them, evenly spread, and the `worst`, for pictures.

    `multi_scale` is scored beside them; it has no part in what the engine loses.

    Raises InputError where no pixel has a label to score against.
    """
    result = Comparison(classes, Score(len(classes)), Score(len(classes)), worst=Worst(worst))
    if multi_scale:
        result.multi_scale = Score(len(classes))
    kept = {int(index) for index in np.linspace(0, len(dataset) - 1, examples)}
    for index in tqdm(range(len(dataset)), unit="image", disable=None if progress else True):
        image_bgr, truth = dataset[index]
        expected = result.reference.add(reference, image_bgr, truth)
        found = result.engine.add(engine, image_bgr, truth)
        if multi_scale and result.multi_scale:
            result.multi_scale.add(multi_scale, image_bgr, truth)
        result.images += 1
        result.agreeing += int(np.count_nonzero(expected == found))
        result.pixels += truth.size
        example = Example(index, image_bgr, truth, expected, found, name_of(dataset, index))
        if worst:
            result.worst.add(example)
        if index in kept:
            result.examples.append(example)
    if not result.reference.confusion.any():
        raise InputError("None of the data set's pixels has a class (all are ignored): give labels to score against.")
    return result


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
