"""KITTI semantics (2018): 200 labelled images of a road in Karlsruhe, with Cityscapes' ids.

    training/image_2/000000_10.png,  training/semantic/000000_10.png

There is one labelled split, `train`. Ladder-style DenseNets (Table 7) evaluate on it; trained on alone, every tenth
image of it is held out.
"""

from pathlib import Path

from splitmerge.labels import CITYSCAPES
from training.datasets.cityscapes import TRAIN_ID_OF
from training.datasets.layout import Layout, Listing, files_in, paired
from training.datasets.reading import value_decoder

__all__ = ["KITTI"]

_FOLDERS = ("training/image_2", "training/semantic")


def _list_split(root: Path, split: str) -> Listing:
    images, labels = (root / folder for folder in _FOLDERS)
    return paired(files_in(images), lambda image: labels / f"{image.stem}.png", files_in(labels))


_decode = value_decoder(TRAIN_ID_OF, "KITTI")

KITTI = Layout(
    "kitti", "KITTI semantics", CITYSCAPES, ("train",), _FOLDERS, _list_split, lambda _: _decode, validation=None
)
