"""PASCAL Context on VOC 2010's images: 59 classes, or 60 with the background. Root: VOCdevkit/VOC2010.

    JPEGImages/NAME.jpg,  SegmentationClassContext/NAME.png    indices: 0 background, 1 to 59 the classes
    ImageSets/SegmentationContext/train.txt, val.txt           4,998 and 5,105 names (FastFCN, section 4.1)

The official annotations are 459 classes in MATLAB files; this is the form that MMSegmentation's and the Detail API's
converters write from them, with the classes in the alphabet's order. Other conversions number them otherwise and have
other folders: bring those as a folder with a classes.yaml.
"""

from pathlib import Path

from splitmerge.labels import IGNORE, LabelClass
from training.datasets.layout import Layout, Listing, Pair, bit_colour, named_in
from training.datasets.reading import Decode, value_decoder

__all__ = ["CLASSES", "CONTEXT", "CONTEXT59"]

_NAMES = (
    "background aeroplane bag bed bedclothes bench bicycle bird boat book bottle building bus cabinet car cat ceiling "
    "chair cloth computer cow cup curtain dog door fence floor flower food grass ground horse keyboard light motorbike "
    "mountain mouse person plate platform pottedplant road rock sheep shelves sidewalk sign sky snow sofa table track "
    "train tree truck tvmonitor wall water window wood"
)
CLASSES = tuple(LabelClass(name, bit_colour(index)) for index, name in enumerate(_NAMES.split()))


def _list_split(root: Path, split: str) -> Listing:
    names = named_in(root / "ImageSets/SegmentationContext" / f"{split}.txt")
    labels = root / "SegmentationClassContext"
    return Listing([Pair(root / "JPEGImages" / f"{name}.jpg", labels / f"{name}.png") for name in names])


def _layout(name: str, classes: tuple[LabelClass, ...], decode: Decode) -> Layout:
    folders = ("JPEGImages", "SegmentationClassContext", "ImageSets/SegmentationContext")
    title = f"PASCAL Context with {len(classes)} classes"
    return Layout(name, title, classes, ("train", "val"), folders, _list_split, lambda _: decode)


_with_background = {value: value for value in (*range(60), IGNORE)}
_without = {value: value - 1 for value in range(1, 60)} | {0: IGNORE, IGNORE: IGNORE}

CONTEXT = _layout("pascal-context", CLASSES, value_decoder(_with_background, "PASCAL Context"))
CONTEXT59 = _layout("pascal-context59", CLASSES[1:], value_decoder(_without, "PASCAL Context"))
