"""PASCAL VOC 2012 segmentation, with the augmentation of SBD; 20 classes and background. Root: VOCdevkit/VOC2012.

    JPEGImages/NAME.jpg,  SegmentationClass/NAME.png           palette PNGs; index 255 is the outline, ignored
    ImageSets/Segmentation/train.txt, val.txt, trainval.txt    names, one a line
    SegmentationClassAug/NAME.png                              VOC's and SBD's labels in one folder, for `trainaug`

`trainaug` are the 10,582 images that DeepLabv3 (section 4) trains on. SBD's own files are MATLAB's; the PNGs that are
passed around as SegmentationClassAug (indices, gray or palette) are what is read here. Its list is the first of
ImageSets/Segmentation/trainaug.txt, train_aug.txt, or train.txt with aug.txt; without any of them it is everything in
SegmentationClassAug that val.txt does not name.
"""

from pathlib import Path

from splitmerge.labels import IGNORE, LabelClass
from training.datasets.layout import Layout, Listing, Pair, bit_colour, files_in, named_in
from training.datasets.reading import value_decoder

__all__ = ["CLASSES", "VOC"]

_NAMES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
)
CLASSES = tuple(LabelClass(name, bit_colour(index)) for index, name in enumerate(_NAMES.split()))


def _list_split(root: Path, split: str) -> Listing:
    augmented = split == "trainaug"
    names = _augmented(root) if augmented else named_in(root / "ImageSets/Segmentation" / f"{split}.txt")
    labels = root / ("SegmentationClassAug" if augmented else "SegmentationClass")
    return Listing([Pair(root / "JPEGImages" / f"{name}.jpg", labels / f"{name}.png") for name in names])


def _augmented(root: Path) -> list[str]:
    lists = root / "ImageSets/Segmentation"
    for name in ("trainaug", "train_aug"):
        if (lists / f"{name}.txt").is_file():
            return named_in(lists / f"{name}.txt")
    there = [path.stem for path in files_in(root / "SegmentationClassAug")]
    if (lists / "aug.txt").is_file():
        return sorted({*named_in(lists / "train.txt"), *named_in(lists / "aug.txt")})
    scored = set(named_in(lists / "val.txt"))
    return [name for name in there if name not in scored]


_decode = value_decoder({value: value for value in (*range(len(CLASSES)), IGNORE)}, "PASCAL VOC")

VOC = Layout(
    "voc",
    "PASCAL VOC 2012",
    CLASSES,
    ("train", "val", "trainval", "trainaug"),
    ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"),
    _list_split,
    lambda _: _decode,
)
