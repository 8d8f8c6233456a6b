"""Labelled data sets by the names that people type: `open_dataset("streets", size=(512, 1024))`.

    streets, streets:train   rendered street scenes, the validation or the training split (training/streets)
    drive, drive:7           a rendered drive through a street, frame by frame; 7 is the street's seed
    KIND:DIR, KIND:DIR:SPLIT an official data set in its official folders (training/datasets): cityscapes, gta5, camvid,
                             cityscapes-coarse, voc, pascal-context, pascal-context59, ade20k, kitti, vistas
    DIR, DIR:SPLIT           the same where the folders tell which it is
    FOLDER                   images/NAME.png|jpg|... with labels/NAME.png of the same size, perhaps a classes.yaml
    A,B                      several, one after the other; their classes must be the same

Where a name has no split, the one to validate on is meant. SPLIT may be several, as in `camvid:DIR:train+val`. The
rendered sets' names win over folders of the same name: a folder called streets is reached as ./streets.

A data set is a sequence of (image_bgr uint8 [H,W,3], labels uint8 [H,W]). Images are read or rendered when asked for;
none is kept. NumPy and OpenCV only.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from splitmerge.errors import InputError
from splitmerge.labels import CITYSCAPES, LabelClass
from training.datasets.known import NAMES, Located, is_data_set, locate
from training.datasets.reading import IMAGE_SUFFIXES, read_image
from training.datasets.samples import Dataset, Joined, Picked, Sample, Samples

__all__ = [
    "IMAGE_SUFFIXES",
    "Dataset",
    "Sample",
    "check_classes",
    "classes_of",
    "image_files",
    "is_labelled",
    "is_rendered",
    "locate_one",
    "open_dataset",
    "parts_of",
    "read_image",
    "training_sets",
]

DEFAULT_LENGTH = 50
DRIVE_FPS = 20.0
_HOLD_OUT = 10  # of a set without a validation split, every tenth image


def open_dataset(
    name: str,
    size: tuple[int, int],
    length: int | None = None,
    seed: int | None = None,
    num_classes: int = len(CITYSCAPES),
    fps: float = DRIVE_FPS,
) -> Dataset:
    """Open a data set by name, with images of `size` (height, width) in pixels.

    `length` is how many images: the first ones of files (all where None), or as many as shall be rendered (50 where
    None), of each where the name joins several; `seed` is the rendered street's, 0 where neither it nor the name says;
    `fps` how many of them make a second of a drive. Files of another size are resized, images smoothly, and labels by
    nearest neighbour. Raises InputError for a name, folder, image or label that cannot be used, and for a data set that
    has not `num_classes` classes; a single image's when it is read.
    """
    if length is not None and length < 1:
        raise InputError(f"A data set of {length} images cannot be: ask for 1 or more.")
    parts = parts_of(name)
    if len(parts) > 1:
        return Joined([open_dataset(part, size, length, seed, num_classes, fps) for part in parts])
    if is_rendered(name):
        return _rendered(name, size, length, seed, fps)
    located = _located(name, num_classes)
    pairs = located.listing(training=False).pairs[:length]
    return Samples(pairs, located.layout.decoder(located.root), size)


def parts_of(name: str) -> list[str]:
    """The names that a name of several joins."""
    return [name] if Path(name).exists() else [part for part in name.split(",") if part] or [name]


def is_rendered(name: str) -> bool:
    """Whether `name` is one of the rendered sets', whatever folders there are."""
    return name.partition(":")[0] in ("streets", "drive")


def is_labelled(name: str) -> bool:
    """Whether `name` is a data set with labels: not a mere folder of images, an image, a video or nothing at all."""
    return all(is_rendered(part) or is_data_set(part) for part in parts_of(name))


def locate_one(name: str, num_classes: int | None = None) -> Located:
    """Where a data set on disk lies, and its layout.

    Raises InputError where there is none, for several names, and for one that has not `num_classes` classes.
    """
    if is_rendered(name):
        raise InputError(f"{name} is rendered, and not on disk: give a folder (as ./{name}) or KIND:DIR.")
    if len(parts_of(name)) > 1:
        raise InputError(f"{name} names {len(parts_of(name))} data sets: give one at a time.")
    return _located(name, num_classes)


def classes_of(name: str) -> tuple[LabelClass, ...]:
    """The classes of a data set, in the order of their ids: Cityscapes' 19 of a rendered one and of a bare folder.

    Raises InputError where there is no such data set, or where those that it joins differ.
    """
    parts = parts_of(name)
    found = [CITYSCAPES if is_rendered(part) else _located(part).layout.classes for part in parts]
    for part, classes in zip(parts, found, strict=True):
        _check_same(part, classes, found[0], f"{parts[0]} has")
    return found[0]


def check_classes(name: str, classes: Sequence[LabelClass], whose: str) -> None:
    """Raise InputError where a data set says that its classes are others than `classes`, which are `whose`."""
    for part in parts_of(name):
        located = None if is_rendered(part) else locate(part, len(classes))
        if located and located.declared:
            _check_same(part, located.layout.classes, classes, f"{whose} has")


def image_files(name: str) -> list[Path] | None:
    """The image files of a data set on disk, of its training split where the name has none; None for any other name."""
    parts = parts_of(name)
    if not all(is_data_set(part) for part in parts):
        return None
    return [pair.image for part in parts for pair in _located(part).listing(training=True).pairs]


def training_sets(
    name: str, size: tuple[int, int], images: int, validation_images: int, cache: Path, num_classes: int = 19
) -> tuple[Dataset, Dataset]:
    """What to train and what to validate on.

    `streets` is rendered once, `images` and `validation_images` of them at `size`, and kept in the folder `cache`.
    Files keep their own sizes (Vistas' are shrunk to 2,048 columns). A data set without a validation split, or whose
    every split is trained on, holds out every tenth image. Several are joined, every image of each alike, as Ladder-
    style DenseNets are trained on Cityscapes and Vistas (Table 7): a small set weighs as little as it is.
    """
    classes_of(name)
    sets = [_training_sets(part, size, images, validation_images, cache, num_classes) for part in parts_of(name)]
    if len(sets) == 1:
        return sets[0]
    return Joined([train for train, _ in sets]), Joined([val for _, val in sets])


def _training_sets(
    name: str, size: tuple[int, int], images: int, validation_images: int, cache: Path, num_classes: int
) -> tuple[Dataset, Dataset]:
    if name == "streets":
        from training.streets import Streets, cached

        return cached(Streets("train", size, images), cache), cached(Streets("val", size, validation_images), cache)
    if is_rendered(name):
        raise InputError(f"There is no data set {name!r} to train on: give `streets` or a folder (as ./{name}).")
    located = _located(name, num_classes)
    layout, root = located.layout, located.root
    decode = layout.decoder(root)
    split = located.split or layout.training
    trained = split.split("+")
    whole = Samples(layout.listing(root, split).pairs, decode, None, layout.width)
    # CamVid's training and validation images together are validated on its test images, as the papers score it.
    rest = [other for other in (layout.validation, "test") if other in layout.splits and other not in trained]
    if rest and rest[0] is not None:
        return whole, Samples(layout.listing(root, rest[0]).pairs, decode, None, layout.width)
    if len(whole) < 2:
        raise InputError(f"{root} holds one image: training needs one and validation another.")
    indices = range(len(whole))
    return Picked(whole, [index for index in indices if index % _HOLD_OUT]), Picked(whole, indices[::_HOLD_OUT])


def _located(name: str, num_classes: int | None = None) -> Located:
    located = locate(name, len(CITYSCAPES) if num_classes is None else num_classes)
    if located is None:
        raise InputError(
            f"There is no data set {name!r}: give `streets`, `streets:train`, `drive`, `drive:SEED`, a folder that "
            f"holds images/ and labels/ (./streets is a folder, too), or KIND:DIR with one of {', '.join(NAMES)}."
        )
    if num_classes is not None and located.declared and len(located.layout.classes) != num_classes:
        raise InputError(
            f"{name} has {len(located.layout.classes)} classes, and {num_classes} were expected: use data of the "
            "classes that the network was made for."
        )
    return located


def _check_same(name: str, own: Sequence[LabelClass], others: Sequence[LabelClass], whose: str) -> None:
    names, wanted = [entry.name for entry in own], [entry.name for entry in others]
    if names == wanted:
        return
    if len(names) != len(wanted):
        raise InputError(
            f"{name} has {len(names)} classes, and {whose} {len(wanted)}: only data of the same classes, in the same "
            "order, goes together."
        )
    index = next(index for index, (a, b) in enumerate(zip(names, wanted, strict=True)) if a != b)
    raise InputError(
        f"{name} has the class {index} {names[index]!r}, where {whose} {wanted[index]!r}: only data of the same "
        "classes, in the same order, goes together."
    )


def _rendered(name: str, size: tuple[int, int], length: int | None, seed: int | None, fps: float) -> Dataset:
    if min(size) < 32:
        raise InputError(f"Scenes of {size[0]}x{size[1]} are too small to be rendered: ask for 32x32 or more.")
    kind, _, detail = name.partition(":")
    count = length or DEFAULT_LENGTH
    if kind == "streets" and detail in ("", "train", "val"):
        from training.streets import Streets

        return Streets("train" if detail == "train" else "val", size, count, seed or 0)
    if kind == "drive" and (not detail or detail.isdecimal()):
        from training.streets import Drive

        if detail and seed not in (None, int(detail)):
            raise InputError(f"{name} and the seed {seed} name two streets: give one of them.")
        return _Frames(Drive(int(detail or seed or 0), size, fps).frame, count)
    raise InputError(
        f"There is no data set {name!r}: give `streets`, `streets:train`, `drive` or `drive:SEED` "
        f"(./{kind} is a folder)."
    )


class _Frames:
    """The first `length` frames of something that draws frame `i`."""

    def __init__(self, frame: Callable[[int], Sample], length: int) -> None:
        self.frame, self.length = frame, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(index)
        return self.frame(index)
