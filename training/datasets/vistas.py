"""Mapillary Vistas 1.2, its 66 classes read as Cityscapes' 19.

    training/images/NAME.jpg,  training/labels/NAME.png,  validation/...     palette PNGs; indices into config.json
    config.json                                                              the classes in order

The release 2.0 holds the same labels as training/v1.2/labels with config_v1.2.json. Ids come from that file, classes
are known by name. Ladder-style DenseNets (section 5.6) map to Cityscapes' classes and do not list how. The table here
follows Cityscapes' definitions: bicycle lanes and markings are road, curbs are sidewalk, sand is terrain, street lights
are poles; what Cityscapes leaves unscored (parking, rail track, guard rail, bridge, tunnel, caravan, trailer, the back
of a sign) is ignored, as is what it does not have. For training, images are shrunk to 2,048 columns as in the paper.
"""

from pathlib import Path

from splitmerge.errors import InputError
from splitmerge.files import read_json
from splitmerge.labels import CITYSCAPES, IGNORE
from training.datasets.layout import Layout, Listing, files_in, paired
from training.datasets.reading import Decode, value_decoder

__all__ = ["CITYSCAPES_OF", "VISTAS", "VISTAS2"]

_FLAT, _OBJECT, _VEHICLE = "construction--flat--", "object--", "object--vehicle--"

CITYSCAPES_OF = {
    f"{_FLAT}road": "road",
    f"{_FLAT}bike-lane": "road",
    f"{_FLAT}crosswalk-plain": "road",
    f"{_FLAT}service-lane": "road",
    "marking--crosswalk-zebra": "road",
    "marking--general": "road",
    f"{_FLAT}sidewalk": "sidewalk",
    f"{_FLAT}curb-cut": "sidewalk",
    f"{_FLAT}pedestrian-area": "sidewalk",
    "construction--barrier--curb": "sidewalk",
    "construction--structure--building": "building",
    "construction--barrier--wall": "wall",
    "construction--barrier--fence": "fence",
    f"{_OBJECT}support--pole": "pole",
    f"{_OBJECT}support--utility-pole": "pole",
    f"{_OBJECT}support--traffic-sign-frame": "pole",
    f"{_OBJECT}street-light": "pole",
    f"{_OBJECT}traffic-light": "traffic light",
    f"{_OBJECT}traffic-sign--front": "traffic sign",
    "nature--vegetation": "vegetation",
    "nature--terrain": "terrain",
    "nature--sand": "terrain",
    "nature--sky": "sky",
    "human--person": "person",
    "human--rider--bicyclist": "rider",
    "human--rider--motorcyclist": "rider",
    "human--rider--other-rider": "rider",
    f"{_VEHICLE}car": "car",
    f"{_VEHICLE}truck": "truck",
    f"{_VEHICLE}bus": "bus",
    f"{_VEHICLE}on-rails": "train",
    f"{_VEHICLE}motorcycle": "motorcycle",
    f"{_VEHICLE}bicycle": "bicycle",
}
"""Vistas' name of a class to Cityscapes'; every other class is ignored."""

_FOLDER = {"train": "training", "val": "validation"}
_WIDTH = 2048


def _layout(labels: str, config: str) -> Layout:
    def list_split(root: Path, split: str) -> Listing:
        folder = root / _FOLDER[split]
        there = files_in(folder / labels)
        return paired(files_in(folder / "images"), lambda image: folder / labels / f"{image.stem}.png", there)

    folders = ("training/images", f"training/{labels}")
    return Layout(
        "vistas",
        "Mapillary Vistas",
        CITYSCAPES,
        tuple(_FOLDER),
        folders,
        list_split,
        lambda root: _decoder(root / config),
        width=_WIDTH,
    )


def _decoder(config: Path) -> Decode:
    try:
        names = [str(entry["name"]) for entry in read_json(config)["labels"]]
    except (KeyError, TypeError):
        raise InputError(f"{config} has no list `labels` of named classes: unpack it from Vistas again.") from None
    missing = sorted(set(CITYSCAPES_OF) - set(names))
    if missing:
        raise InputError(f"{config} does not name {missing[0]}, which Vistas 1.2 has: unpack that release.")
    index_of = {entry.name: index for index, entry in enumerate(CITYSCAPES)}
    ids = {value: index_of.get(CITYSCAPES_OF.get(name, ""), IGNORE) for value, name in enumerate(names)}
    return value_decoder(ids, "Mapillary Vistas 1.2")


VISTAS = _layout("labels", "config.json")
VISTAS2 = _layout("v1.2/labels", "config_v1.2.json")
