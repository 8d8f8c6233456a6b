"""KITTI semantics (2018): 200 labelled images of a road in Karlsruhe, with Cityscapes' ids.

    training/image_2/000000_10.png,  training/semantic/000000_10.png,  training/instance/000000_10.png

There is one labelled split, `train`. Ladder-style DenseNets (Table 7) evaluate on it; trained on alone, every tenth
image of it is held out. The upper eight bits of an instance's sixteen are its label id, the lower eight its number from
1 on, or 0 where there is no single instance (readme of the development kit).
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from splitmerge.errors import InputError
from splitmerge.labels import CITYSCAPES
from training.datasets.cityscapes import TRAIN_ID_OF
from training.datasets.layout import Instances, Layout, Listing, files_in, paired
from training.datasets.reading import read_wide_values, value_decoder

__all__ = ["KITTI"]

_AVERAGE_PIXELS = {
    "person": 1234.262573,
    "rider": 1318.393921,
    "car": 3669.255859,
    "truck": 1801.103394,
    "bus": 2761.151611,
    "train": 18448.460938,
    "motorcycle": 695.617676,
    "bicycle": 1244.791260,
}
"""Pixels of an average instance in KITTI, from its development kit's evaluation script
(evalPixelLevelSemanticLabeling)."""

_WITH_INSTANCES = range(24, 34)
"""Label ids of what is counted one by one; by the kit's readme buildings have numbers, too."""

_FOLDERS = ("training/image_2", "training/semantic")


def _list_split(root: Path, split: str) -> Listing:
    images, labels = (root / folder for folder in _FOLDERS)
    return paired(files_in(images), lambda image: labels / f"{image.stem}.png", files_in(labels))


def _read_instances(path: Path) -> NDArray[np.uint16]:
    """Instances in Cityscapes' form, uint16 `[H,W]`: label id times 1,000 and a number, or the label id alone.

    Raises InputError for a file that is in no such form.
    """
    values = read_wide_values(path)
    label, number = values >> 8, values & 255
    unknown = sorted({*np.unique(label).tolist()} - {*TRAIN_ID_OF})
    if unknown or not label.any():
        what = f"the label id {unknown[0]}" if unknown else "no label id at all"
        raise InputError(
            f"{path} has {what} in its upper eight bits, and KITTI's instances have Cityscapes' ids there: unpack "
            "training/instance again."
        )
    return np.where((number > 0) & np.isin(label, _WITH_INSTANCES), label * 1000 + number, label)


_decode = value_decoder(TRAIN_ID_OF, "KITTI")

KITTI = Layout(
    "kitti",
    "KITTI semantics",
    CITYSCAPES,
    ("train",),
    _FOLDERS,
    _list_split,
    lambda _: _decode,
    validation=None,
    instances=Instances(
        lambda label: label.parent.with_name("instance") / label.name, _AVERAGE_PIXELS, _read_instances
    ),
)
