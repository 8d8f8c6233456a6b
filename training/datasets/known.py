"""Which data set a name means: `cityscapes:DIR`, `voc:DIR:trainaug`, or a bare DIR whose folders leave no doubt."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from splitmerge.errors import InputError
from training.datasets.ade20k import ADE20K
from training.datasets.camvid import CAMVID, SEGNET
from training.datasets.cityscapes import COARSE, FINE
from training.datasets.context import CONTEXT, CONTEXT59
from training.datasets.folder import folder_layout, is_folder
from training.datasets.gta5 import GTA5
from training.datasets.kitti import KITTI
from training.datasets.layout import Layout, Listing
from training.datasets.vistas import VISTAS, VISTAS2
from training.datasets.voc import VOC

__all__ = ["LAYOUTS", "NAMES", "Located", "is_data_set", "locate"]

LAYOUTS = (FINE, COARSE, GTA5, CAMVID, SEGNET, VOC, CONTEXT, CONTEXT59, ADE20K, KITTI, VISTAS, VISTAS2)
NAMES = tuple(dict.fromkeys(layout.name for layout in LAYOUTS))

_BY_NAME_ONLY = (GTA5, CONTEXT59)
"""GTA-5's folders are those of any folder, and Context's 59 and 60 classes are read from the same files."""

_LOOKED_AT = 200


@dataclass(frozen=True)
class Located:
    """A data set's layout and where it lies. `declared`: it says itself what its classes are."""

    layout: Layout
    root: Path
    split: str | None
    declared: bool = True

    def listing(self, training: bool) -> Listing:
        """The files of its split; where the name had none, of the one to train on or the one to validate on."""
        return self.layout.listing(self.root, self.split or self.default(training))

    def default(self, training: bool) -> str:
        """The split that is meant where none is named."""
        return self.layout.training if training else self.layout.validation or self.layout.training


def locate(name: str, num_classes: int) -> Located | None:
    """What a name means, None where it is neither a known data set's nor a folder's.

    Raises InputError for a known one that does not lie there, or for a folder that could be two.
    """
    kind, _, rest = name.partition(":")
    if kind in NAMES and not (rest == "" and Path(name).is_dir()):
        return _known(kind, rest)
    root, split = _root_and_split(name)
    if not root.is_dir():
        return None
    if not is_folder(root):
        fitting = [layout for layout in LAYOUTS if layout.fits(root) and layout not in _BY_NAME_ONLY]
        names = list(dict.fromkeys(layout.name for layout in fitting))
        if len(names) > 1:
            words = " or ".join(f"{name}:{root}" for name in names)
            raise InputError(f"{root} holds the folders of {' and '.join(names)}: say which is meant, as {words}.")
        if fitting:
            return Located(fitting[0], root, split)
        near = _near(root, LAYOUTS)  # GTA-5's folders stand for those of any folder
        if near:
            raise InputError(f"{root} is no data set, and {near} is: give that instead.")
    layout, declared = folder_layout(root, num_classes)
    return Located(layout, root, split, declared)


def is_data_set(name: str) -> bool:
    """Whether `name` asks for a data set on disk, whole or not: not for a mere folder of images, a file or nothing."""
    kind, _, rest = name.partition(":")
    if kind in NAMES and rest:
        return True
    root, _ = _root_and_split(name)
    return root.is_dir() and (is_folder(root) or any(layout.fits(root) for layout in LAYOUTS))


def _known(kind: str, rest: str) -> Located:
    if not rest:
        raise InputError(f"The data set {kind} lies in a folder: say where, as {kind}:DIR or {kind}:DIR:SPLIT.")
    root, split = _root_and_split(rest)
    if not root.is_dir():
        raise InputError(f"There is no folder {root} for {kind}: name the one that it was unpacked in.")
    layouts = [layout for layout in LAYOUTS if layout.name == kind]
    for layout in layouts:
        if layout.fits(root, split):
            return Located(layout, root, split)
    first = layouts[0]
    missing = first.missing(root, split)[0]
    near = _near(root, layouts)
    where = f"give {near}, which has it" if near else f"it lies where {', '.join(f'{f}/' for f in first.folders)} are"
    raise InputError(f"{root} has no {missing}/, and so is not the root of {first.title}: {where}.")


def _root_and_split(text: str) -> tuple[Path, str | None]:
    head, colon, tail = text.rpartition(":")
    if colon and head and not Path(text).is_dir() and re.fullmatch(r"[a-z_+]+", tail):
        return Path(head), tail
    return Path(text), None


def _near(root: Path, layouts: Iterable[Layout]) -> Path | None:
    """A folder up to two levels above or below that is a data set's root: the usual mistake of a level."""
    for place in (*islice(root.resolve().parents, 2), *islice(_below(root), _LOOKED_AT)):
        if any(layout.fits(place) for layout in layouts):
            return place
    return None


def _below(root: Path) -> Iterator[Path]:
    try:
        children = sorted(path for path in root.iterdir() if path.is_dir())
    except OSError:
        return
    yield from children
    for child in islice(children, _LOOKED_AT):
        try:
            yield from sorted(path for path in child.iterdir() if path.is_dir())
        except OSError:
            continue
