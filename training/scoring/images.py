"""What is scored: every image at its own size, with its labels and, where the data set has them, its instances."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from splitmerge.errors import InputError
from training.data import is_rendered, locate_one, open_dataset, parts_of
from training.datasets.cityscapes import FINE
from training.datasets.layout import Instances, Pair
from training.datasets.reading import Decode, Image, read_image
from training.datasets.samples import read_pair
from training.scoring.instances import InstanceMap

__all__ = ["Scored", "ScoredImage", "images_to_score"]


class Scored(NamedTuple):
    """An image uint8 `[H,W,3]`, blue-green-red; labels uint8 `[H,W]` and instances where it has them."""

    image_bgr: Image
    labels: Image | None
    instances: InstanceMap | None


@dataclass(frozen=True)
class ScoredImage:
    """One image, read when asked for. `file` is its own, None of what is on no disk."""

    read: Callable[[], Scored]
    file: Path | None = None
    is_cityscapes: bool = False
    is_labelled: bool = True


def images_to_score(name: str, size: tuple[int, int], length: int | None, num_classes: int) -> list[ScoredImage]:
    """The images of a data set as `training.data` names it, or of Cityscapes' test split, which has no labels.

    `length` is how many: the first ones of files, all where None. Rendered sets are drawn at `size` (height, width).
    Raises InputError for a name, folder or label file that cannot be used, and for a data set that has not
    `num_classes` classes; an image's own errors come when it is read.
    """
    return [image for part in parts_of(name) for image in _of_one(part, size, length, num_classes)]


def _of_one(name: str, size: tuple[int, int], length: int | None, num_classes: int) -> list[ScoredImage]:
    if is_rendered(name):
        drawn = open_dataset(name, size, length, num_classes=num_classes)
        return [ScoredImage(partial(_drawn, drawn.__getitem__, index)) for index in range(len(drawn))]
    located = locate_one(name, num_classes)
    is_cityscapes = located.layout.name.startswith(FINE.name)
    if located.split in located.layout.unlabelled:
        files = located.layout.images(located.root, located.split or "")[:length]
        return [ScoredImage(partial(_alone, file), file, is_cityscapes, False) for file in files]
    pairs = located.listing(training=False).pairs[:length]
    for pair in pairs:
        if not pair.label.is_file():
            raise InputError(
                f"{pair.image} has no label: expected {pair.label}; add it or take the image away "
                "(`splitmerge data check` lists all that is missing)."
            )
    decode, kind = located.layout.decoder(located.root), located.layout.instances
    found = []
    for pair, instances in zip(pairs, _instances(kind, pairs), strict=True):
        found.append(ScoredImage(partial(_read, pair, decode, kind, instances), pair.image, is_cityscapes))
    return found


def _instances(kind: Instances | None, pairs: list[Pair]) -> list[Path] | list[None]:
    """The instance files of all, or none where there is not one."""
    if kind is None:
        return [None] * len(pairs)
    files = [kind.file_of(pair.label) for pair in pairs]
    missing = [file for file in files if not file.is_file()]
    if len(missing) == len(files):
        return [None] * len(pairs)
    if missing:
        raise InputError(
            f"There is no file {missing[0]}, though other images have their instances: unpack the data set again."
        )
    return files


def _drawn(draw: Callable[[int], tuple[Image, Image]], index: int) -> Scored:
    return Scored(*draw(index), None)


def _alone(file: Path) -> Scored:
    return Scored(read_image(file), None, None)


def _read(pair: Pair, decode: Decode, kind: Instances | None, file: Path | None) -> Scored:
    found = InstanceMap(kind.read(file), kind.average_pixels, file) if kind and file else None
    return Scored(*read_pair(pair, decode), found)
