"""All scores of one network on a data set, from counts that add up over images."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitmerge.labels import CITYSCAPES, THIN_CLASSES, LabelClass
from training.datasets.cityscapes import CATEGORIES, CATEGORY_OF
from training.metrics import (
    boundary_counts,
    boundary_iou,
    category_iou,
    confusion_matrix,
    iou,
    mean_iou,
    mean_of_known,
)
from training.scoring.instances import InstanceCounts, InstanceMap

__all__ = ["Scores"]

Values = NDArray[np.float64]


class Scores:
    """Running counts of a network's predictions; memory does not grow with the images."""

    def __init__(self, classes: tuple[LabelClass, ...]) -> None:
        self.classes, self.images = classes, 0
        self.confusion = np.zeros((len(classes), len(classes)), np.int64)
        self.confusion_with_instances = np.zeros_like(self.confusion)  # of the images that have them
        self.boundary = np.zeros((2, len(classes)), np.int64)
        self.instances: InstanceCounts | None = None

    def add(
        self, prediction: NDArray[np.uint8], truth: NDArray[np.uint8], instances: InstanceMap | None = None
    ) -> None:
        """Count an image's labels uint8 [H,W], and its instances.

        Raises InputError where sizes differ or there are instances of what has none.
        """
        counts = confusion_matrix(prediction, truth, len(self.classes))
        if instances is not None:
            self.instances = self.instances or InstanceCounts()
            self.instances.add(prediction, instances)
            self.confusion_with_instances += counts
        self.confusion += counts
        self.boundary += boundary_counts(prediction, truth, len(self.classes))
        self.images += 1

    @property
    def has_categories(self) -> bool:
        """Whether the classes are Cityscapes', which has categories."""
        return [entry.name for entry in self.classes] == [entry.name for entry in CITYSCAPES]

    def per_class(self) -> dict[str, Values]:
        """What there is for each class, 0..1 and NaN for none: `iou`, `boundary_iou`, and `iiou` with instances."""
        found = {"iou": iou(self.confusion)}
        if self.instances:
            found["iiou"] = self.instances.iou(self.confusion_with_instances)
        return found | {"boundary_iou": boundary_iou(self.boundary)}

    def per_category(self) -> dict[str, Values]:
        """What there is for each category: `iou`, and `iiou` with instances."""
        if not self.has_categories:
            return {}
        found = {"iou": category_iou(self.confusion, CATEGORY_OF)}
        return found | ({"iiou": self.instances.category_iou(self.confusion_with_instances)} if self.instances else {})

    def to_json(self) -> dict[str, Any]:
        """Shares 0..1; null for what never occurs."""
        names = [entry.name for entry in self.classes]
        found: dict[str, Any] = {"images": self.images, "miou": _number(mean_iou(self.confusion))}
        thin = [index for index, name in enumerate(names) if name in THIN_CLASSES]
        if thin:
            found["thin_miou"] = _number(mean_of_known(iou(self.confusion)[thin]))
        for kind, values in self.per_class().items():
            found |= {kind: _named(names, values)}
            if kind != "iou":
                found |= {f"mean_{kind}": _number(mean_of_known(values))}
        for kind, values in self.per_category().items():
            found |= {f"category_{kind}": _named(CATEGORIES, values)}
            found |= {f"mean_category_{kind}": _number(mean_of_known(values))}
        return found

    def table(self) -> str:
        """For people: a row per class, category and mean, in percent."""
        kinds, titles = self.per_class(), {"iou": "IoU", "boundary_iou": "boundary IoU", "iiou": "iIoU"}
        lines = [f"{'class':<24}" + "".join(f"{titles[kind]:>14}" for kind in kinds), "-" * (24 + 14 * len(kinds))]
        for index, entry in enumerate(self.classes):
            name = entry.name + ("  (thin)" if entry.name in THIN_CLASSES else "")
            lines.append(_row(name, [values[index] for values in kinds.values()]))
        lines += [lines[1], _row("mean of the classes", [mean_of_known(values) for values in kinds.values()])]
        categories = self.per_category()
        if categories:
            lines.append("")
            for index, name in enumerate(CATEGORIES):
                lines.append(_row(name, _in_place(kinds, categories, index)))
            lines.append(_row("mean of the categories", _in_place(kinds, categories, None)))
        return "\n".join(lines)


def _in_place(kinds: Mapping[str, Values], found: Mapping[str, Values], index: int | None) -> list[float]:
    """A category's scores, or their means, under the headings of the classes' scores."""
    nothing = np.full(1, np.nan)
    columns = [found.get(kind, nothing) for kind in kinds]
    if index is None:
        return [mean_of_known(values) for values in columns]
    return [float(values[index]) if len(values) > 1 else math.nan for values in columns]


def _row(name: str, values: Sequence[float]) -> str:
    return f"{name:<24}" + "".join(f"{'-' if math.isnan(value) else f'{100 * value:.2f}':>14}" for value in values)


def _named(names: Sequence[str], values: Values) -> dict[str, float | None]:
    return dict(zip(names, map(_number, values), strict=True))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
