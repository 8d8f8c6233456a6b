"""What a data set on disk is: its folders, splits, classes, which files belong together, how labels are decoded."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from splitmerge.errors import InputError
from splitmerge.labels import LabelClass
from training.datasets.reading import IMAGE_SUFFIXES, Decode, read_wide_values

__all__ = ["Instances", "Layout", "Listing", "Pair", "bit_colour", "files_in", "named_in", "paired"]


@dataclass(frozen=True)
class Pair:
    """An image file and the label file that belongs to it, there or not."""

    image: Path
    label: Path


@dataclass(frozen=True)
class Listing:
    """The files of one split. `spare` are labels without an image; `notes` say what was left out on purpose."""

    pairs: list[Pair]
    spare: list[Path] = field(default_factory=list)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Instances:
    """The instances of a data set. `file_of` gives the file of their ids that belongs to a label file, there or not.

    `read` gives what it holds as uint16 `[H,W]`: of an instance its label id times 1,000 and a number, elsewhere less
    than that. `average_pixels` is how many an instance of each class has, by the class's name.
    """

    file_of: Callable[[Path], Path]
    average_pixels: Mapping[str, float]
    read: Callable[[Path], NDArray[np.uint16]] = read_wide_values


@dataclass(frozen=True)
class Layout:
    """One official form of a data set.

    `folders` are what the root must hold. `training` and `validation` are the splits that are meant where none is
    named; without a validation split, every tenth image of the training split is held out. `list_split(root, split)`
    raises InputError where the split's folder or list is missing. Wider images than `width` are shrunk to it for
    training. `unlabelled` are splits whose labels are not public; the first of `folders` holds images.
    """

    name: str
    title: str
    classes: tuple[LabelClass, ...]
    splits: tuple[str, ...]
    folders: tuple[str, ...]
    list_split: Callable[[Path, str], Listing]
    decoder: Callable[[Path], Decode]
    training: str = "train"
    validation: str | None = "val"
    width: int | None = None
    unlabelled: tuple[str, ...] = ()
    instances: Instances | None = None

    def fits(self, root: Path, split: str | None = None) -> bool:
        """Whether `root` holds this layout's folders, those of the images alone for an unlabelled split."""
        return not self.missing(root, split)

    def missing(self, root: Path, split: str | None = None) -> list[str]:
        """The folders that `root` does not hold."""
        folders = self.folders[:1] if split in self.unlabelled else self.folders
        return [folder for folder in folders if not (root / folder).is_dir()]

    def images(self, root: Path, split: str) -> list[Path]:
        """The images of an unlabelled split. Raises InputError where there is none."""
        found = [pair.image for pair in self.list_split(root, split).pairs]
        if not found:
            raise InputError(f"The split {split} of {self.title} in {root} holds no images: unpack them there.")
        return found

    def listing(self, root: Path, split: str) -> Listing:
        """The files of a split, or of several joined by `+`. Raises InputError for one that is unknown or empty."""
        parts = []
        for name in split.split("+"):
            if name not in self.splits:
                raise InputError(f"{self.title} has no split {name!r}: its splits are {', '.join(self.splits)}.")
            parts.append(self.list_split(root, name))
            if not parts[-1].pairs:
                raise InputError(f"The split {name} of {self.title} in {root} holds no images: unpack them there.")
        return Listing(
            [pair for part in parts for pair in part.pairs],
            [path for part in parts for path in part.spare],
            tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        )


def files_in(
    folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES, ending: str = "", deep: bool = False
) -> list[Path]:
    """Image files whose name ends with `ending` before the suffix, in order; those one folder below where `deep`.

    Raises InputError where the folder is missing.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}: unpack the data set there, or name another split.")
    found = folder.glob("*/*") if deep else folder.iterdir()
    kinds = tuple(suffixes)
    return sorted(path for path in found if path.suffix.lower() in kinds and path.stem.endswith(ending))


def paired(images: Iterable[Path], label_of: Callable[[Path], Path], labels: Iterable[Path] = ()) -> Listing:
    """Each image with its label's path; of `labels`, those that no image belongs to are spare."""
    pairs = [Pair(image, label_of(image)) for image in images]
    wanted = {pair.label for pair in pairs}
    return Listing(pairs, [label for label in labels if label not in wanted])


def named_in(path: Path) -> list[str]:
    """The names that a split's list holds, one a line, as stems (of the first word, should there be more).

    Raises InputError where the list is missing or is no text.
    """
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        raise InputError(f"There is no list {path}: unpack the whole data set, or name another split.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a list of names ({error}): unpack it again.") from None
    return [Path(line.split()[0]).stem for line in lines if line.strip()]


def bit_colour(index: int) -> tuple[int, int, int]:
    """PASCAL VOC's colour (red, green, blue) of an index: its bits, dealt to the channels from the highest down."""
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    return channels[0], channels[1], channels[2]
