"""Class names and colours. `CITYSCAPES` lists the 19 train ids in order (Cityscapes' own names and palette)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CITYSCAPES", "IGNORE", "THIN_CLASSES", "LabelClass", "colours_from_labels", "palette_bgr"]

IGNORE = 255
"""Label of a pixel that carries no class: it is neither trained on nor scored."""


@dataclass(frozen=True)
class LabelClass:
    """One class: its name and its colour as (red, green, blue), 0..255."""

    name: str
    rgb: tuple[int, int, int]


CITYSCAPES: tuple[LabelClass, ...] = (
    LabelClass("road", (128, 64, 128)),
    LabelClass("sidewalk", (244, 35, 232)),
    LabelClass("building", (70, 70, 70)),
    LabelClass("wall", (102, 102, 156)),
    LabelClass("fence", (190, 153, 153)),
    LabelClass("pole", (153, 153, 153)),
    LabelClass("traffic light", (250, 170, 30)),
    LabelClass("traffic sign", (220, 220, 0)),
    LabelClass("vegetation", (107, 142, 35)),
    LabelClass("terrain", (152, 251, 152)),
    LabelClass("sky", (70, 130, 180)),
    LabelClass("person", (220, 20, 60)),
    LabelClass("rider", (255, 0, 0)),
    LabelClass("car", (0, 0, 142)),
    LabelClass("truck", (0, 0, 70)),
    LabelClass("bus", (0, 60, 100)),
    LabelClass("train", (0, 80, 100)),
    LabelClass("motorcycle", (0, 0, 230)),
    LabelClass("bicycle", (119, 11, 32)),
)

THIN_CLASSES: tuple[str, ...] = (
    "pole",
    "traffic light",
    "traffic sign",
    "person",
    "rider",
    "motorcycle",
    "bicycle",
)
"""The small and thin classes that the Split-Merge Pooling paper reports apart (Tables 3 and 4)."""


def palette_bgr(classes: tuple[LabelClass, ...]) -> NDArray[np.uint8]:
    """Look-up table uint8 [256,3] in OpenCV's blue-green-red order; ids without a class are black."""
    table = np.zeros((256, 3), np.uint8)
    for index, entry in enumerate(classes):
        table[index] = entry.rgb[::-1]
    return table


def colours_from_labels(labels: NDArray[np.uint8], classes: tuple[LabelClass, ...] = CITYSCAPES) -> NDArray[np.uint8]:
    """Paint a label map uint8 [H,W] in its classes' colours: uint8 [H,W,3], blue-green-red."""
    return palette_bgr(classes)[labels]
