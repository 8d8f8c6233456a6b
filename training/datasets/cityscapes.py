"""Cityscapes, and the sets that share its ids: GTA-5 and KITTI.

    leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png                with, for the fine annotations,
    gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png                 or ..._labelTrainIds.png where that is all there is;
    gtCoarse/SPLIT/CITY/NAME_gtCoarse_labelIds.png             for the coarse ones

`train`, `val`; coarse also `train_extra` (19,998 images, of which troisdorf_000000_000073 was released damaged and is
to be replaced by its separate download). The labels of `test` are not public: they are all void, and only images are
read of it. Instances are in ..._instanceIds.png beside the labels.
"""

from pathlib import Path

from splitmerge.labels import CITYSCAPES, IGNORE
from training.datasets.layout import Instances, Layout, Listing, files_in, paired
from training.datasets.reading import Decode, Image, value_decoder

__all__ = ["AVERAGE_PIXELS", "CATEGORIES", "CATEGORY_OF", "COARSE", "FINE", "TRAIN_ID_OF", "coarse_or_fine"]

_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

TRAIN_ID_OF = dict.fromkeys((*range(34), IGNORE), IGNORE) | {value: train for train, value in enumerate(_IDS)}
"""Cityscapes' label id to train id. 255 is what id -1 (license plate) becomes in eight bits."""

CATEGORIES = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")

CATEGORY_OF = (0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 5, 6, 6, 6, 6, 6, 6)
"""The category of each train id, an index into CATEGORIES."""

AVERAGE_PIXELS = {
    "person": 3462.4756337644,
    "rider": 3930.4788056518,
    "car": 12794.0202738185,
    "truck": 27855.1264367816,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "motorcycle": 6298.7200839748,
    "bicycle": 4672.3249222261,
}
"""Pixels of an average instance in Cityscapes, from its own evaluation script (cityscapesScripts,
evalPixelLevelSemanticLabeling)."""


def coarse_or_fine(name: str, kind: str, splits: tuple[str, ...]) -> Layout:
    """The layout of one of the two kinds of annotation, `gtFine` or `gtCoarse`."""

    def list_split(root: Path, split: str) -> Listing:
        images = files_in(root / "leftImg8bit" / split, ending="_leftImg8bit", deep=True)
        folder = root / kind / split
        ids = sorted(folder.glob(f"*/*_{kind}_labelIds.png"))
        ending = "labelIds" if ids or not any(folder.glob("*/*_labelTrainIds.png")) else "labelTrainIds"

        def label_of(image: Path) -> Path:
            stem = image.stem.removesuffix("_leftImg8bit")
            return folder / image.parent.name / f"{stem}_{kind}_{ending}.png"

        return paired(images, label_of, ids or sorted(folder.glob(f"*/*_{kind}_labelTrainIds.png")))

    return Layout(
        name,
        f"Cityscapes ({kind})",
        CITYSCAPES,
        splits,
        ("leftImg8bit", kind),
        list_split,
        lambda root: _decode,
        unlabelled=("test",),
        instances=Instances(
            lambda label: label.with_name(f"{label.stem.rpartition('_')[0]}_instanceIds.png"), AVERAGE_PIXELS
        ),
    )


_from_ids: Decode = value_decoder(TRAIN_ID_OF, "Cityscapes")
_from_train_ids: Decode = value_decoder({value: value for value in (*range(19), IGNORE)}, "Cityscapes' train ids")


def _decode(path: Path) -> Image:
    return (_from_train_ids if path.stem.endswith("_labelTrainIds") else _from_ids)(path)


FINE = coarse_or_fine("cityscapes", "gtFine", ("train", "val"))
COARSE = coarse_or_fine("cityscapes-coarse", "gtCoarse", ("train", "val", "train_extra"))
