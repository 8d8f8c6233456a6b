"""CamVid: 701 frames of drives, 32 classes, 11 of which the papers score (and void).

    701_StillsRaw_full/NAME.png,  LabeledApproved_full/NAME_L.png     the official form: 720x960, labels in colours
    train/NAME.png, trainannot/NAME.png, val..., test...              SegNet's form: 360x480, labels 0 to 10, 11 void

The 367 / 101 / 233 images of `train`, `val` and `test` are SegNet's split, which follows the sequences, so that a name
tells where it belongs. Ladder-style DenseNets (section 5.3) train on `train+val` and score `test`.
"""

import re
from pathlib import Path

from splitmerge.labels import IGNORE, LabelClass
from training.datasets.layout import Layout, Listing, files_in, paired
from training.datasets.reading import colour_decoder, value_decoder

__all__ = ["CAMVID", "CLASSES", "COLOURS", "SEGNET", "split_of"]

_GROUPS = {
    "Sky": ("Sky",),
    "Building": ("Building", "Archway", "Bridge", "Tunnel", "Wall"),
    "Pole": ("Column_Pole", "TrafficCone"),
    "Road": ("Road", "LaneMkgsDriv", "LaneMkgsNonDriv"),
    "Pavement": ("Sidewalk", "ParkingBlock", "RoadShoulder"),
    "Tree": ("Tree", "VegetationMisc"),
    "SignSymbol": ("SignSymbol", "Misc_Text", "TrafficLight"),
    "Fence": ("Fence",),
    "Car": ("Car", "OtherMoving", "SUVPickupTruck", "Train", "Truck_Bus"),
    "Pedestrian": ("Pedestrian", "Animal", "CartLuggagePram", "Child"),
    "Bicyclist": ("Bicyclist", "MotorcycleScooter"),
}
"""SegNet's 11 classes in its order, and the official ones that each stands for; the first gives the colour."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "Animal": (64, 128, 64),
    "Archway": (192, 0, 128),
    "Bicyclist": (0, 128, 192),
    "Bridge": (0, 128, 64),
    "Building": (128, 0, 0),
    "Car": (64, 0, 128),
    "CartLuggagePram": (64, 0, 192),
    "Child": (192, 128, 64),
    "Column_Pole": (192, 192, 128),
    "Fence": (64, 64, 128),
    "LaneMkgsDriv": (128, 0, 192),
    "LaneMkgsNonDriv": (192, 0, 64),
    "Misc_Text": (128, 128, 64),
    "MotorcycleScooter": (192, 0, 192),
    "OtherMoving": (128, 64, 64),
    "ParkingBlock": (64, 192, 128),
    "Pedestrian": (64, 64, 0),
    "Road": (128, 64, 128),
    "RoadShoulder": (128, 128, 192),
    "SUVPickupTruck": (64, 128, 192),
    "Sidewalk": (0, 0, 192),
    "SignSymbol": (192, 128, 128),
    "Sky": (128, 128, 128),
    "TrafficCone": (0, 0, 64),
    "TrafficLight": (0, 64, 64),
    "Train": (192, 64, 128),
    "Tree": (128, 128, 0),
    "Truck_Bus": (192, 128, 192),
    "Tunnel": (64, 0, 64),
    "VegetationMisc": (192, 192, 0),
    "Void": (0, 0, 0),
    "Wall": (64, 192, 0),
}
"""The 32 official classes and their colours (red, green, blue), as label_colors.txt lists them."""

CLASSES = tuple(LabelClass(name, COLOURS[members[0]]) for name, members in _GROUPS.items())
_SPLITS = ("train", "val", "test")


def split_of(stem: str) -> str:
    """Which split of SegNet's a frame is in, by its name: `0016E5_07959` is the first of `val`.

    The day's drive 0016E5 gives `val` a stretch of 101 frames at 15 Hz; 0001TP is cut in the middle, and the dusk drive
    Seq05VD is all `test`.
    """
    sequence, _, number = stem.partition("_")
    frame = int(re.sub(r"\D", "", number) or 0)
    if sequence == "Seq05VD" or (sequence == "0001TP" and frame >= 8550):
        return "test"
    return "val" if sequence == "0016E5" and 7959 <= frame <= 8159 else "train"


def _list_official(root: Path, split: str) -> Listing:
    labels = root / "LabeledApproved_full"
    images = [path for path in files_in(root / "701_StillsRaw_full") if split_of(path.stem) == split]
    there = [path for path in files_in(labels, ending="_L") if split_of(path.stem.removesuffix("_L")) == split]
    return paired(images, lambda image: labels / f"{image.stem}_L.png", there)


def _list_segnet(root: Path, split: str) -> Listing:
    labels = root / f"{split}annot"
    return paired(files_in(root / split), lambda image: labels / f"{image.stem}.png", files_in(labels))


_ID_OF = {member: index for index, members in enumerate(_GROUPS.values()) for member in members}
_segnet = value_decoder({index: index for index in range(11)} | {11: IGNORE, IGNORE: IGNORE}, "CamVid with 11 classes")

CAMVID = Layout(
    "camvid",
    "CamVid",
    CLASSES,
    _SPLITS,
    ("701_StillsRaw_full", "LabeledApproved_full"),
    _list_official,
    lambda _: colour_decoder({colour: _ID_OF.get(name, IGNORE) for name, colour in COLOURS.items()}, "CamVid"),
)
SEGNET = Layout(
    "camvid", "CamVid in SegNet's form", CLASSES, _SPLITS, ("train", "trainannot"), _list_segnet, lambda _: _segnet
)
