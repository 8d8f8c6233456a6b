"""GTA-5, "Playing for Data" (Richter et al., ECCV 2016): 24,966 frames of a game, 19 Cityscapes classes.

    images/00001.png ... 24966.png,  labels/00001.png ...      palette PNGs whose indices are Cityscapes' ids

The palette has Cityscapes' colours, several ids in one colour, so the index is read; 34 is the license plate. Frames
come in several sizes. Two of the official labels, 15188 and 17705, are of another size than their images.

Split-Merge Pooling (section 4.4) validates on 500 images drawn at random, and does not say which. Here they are those
whose names have the smallest SHA-256, one in fifty: 500 of the whole set, and about the same share of any part of it.
"""

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path

from splitmerge.labels import CITYSCAPES, IGNORE
from training.datasets.cityscapes import TRAIN_ID_OF
from training.datasets.layout import Layout, Listing, files_in, paired
from training.datasets.reading import value_decoder

__all__ = ["GTA5", "KNOWN_BAD", "validation_names"]

KNOWN_BAD = ("15188", "17705")
"""Frames of the official release whose label is of another size than the image; they are left out."""

_ONE_IN = 50


def validation_names(names: Iterable[str]) -> set[str]:
    """Those of the names of usable frames that validate."""
    ranked = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    return set(ranked[: math.ceil(len(ranked) / _ONE_IN)])


def _list_split(root: Path, split: str) -> Listing:
    images = [path for path in files_in(root / "images") if path.stem not in KNOWN_BAD]
    held_out = validation_names(path.stem for path in images)
    chosen = [path for path in images if split == "all" or (path.stem in held_out) == (split == "val")]
    listing = paired(chosen, _label_of)
    every = {_label_of(path) for path in images}
    # A label without an image belongs to no split; it is told once, with the training images.
    spare = [path for path in files_in(root / "labels") if path not in every and path.stem not in KNOWN_BAD]
    left_out = [name for name in KNOWN_BAD if (root / "images" / f"{name}.png").exists()]
    notes = (f"{', '.join(left_out)} left out: their labels are of another size in the official release",)
    return Listing(listing.pairs, spare if split != "val" else [], notes if left_out else ())


def _label_of(image: Path) -> Path:
    return image.parent.parent / "labels" / f"{image.stem}.png"


_decode = value_decoder(TRAIN_ID_OF | {34: IGNORE}, "GTA-5")

GTA5 = Layout(
    "gta5", "GTA-5", CITYSCAPES, ("train", "val", "all"), ("images", "labels"), _list_split, lambda _: _decode
)
