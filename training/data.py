"""Labelled data sets by the names that people type: `open_dataset("streets", size=(512, 1024))`.

    streets, streets:train   rendered street scenes, the validation or the training split (training/streets)
    drive, drive:7           a rendered drive through a street, frame by frame; 7 is the street's seed
    FOLDER                   images/NAME.png|jpg|... with labels/NAME.png of the same size

The rendered sets' names win over folders of the same name: a folder called streets is reached as ./streets.

A data set is a sequence of (image_bgr uint8 [H,W,3], labels uint8 [H,W]). Images are read or rendered when asked for;
none is kept. NumPy and OpenCV only.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from splitmerge.errors import InputError
from splitmerge.labels import CITYSCAPES, IGNORE

__all__ = [
    "IMAGE_SUFFIXES",
    "Dataset",
    "Folder",
    "Sample",
    "is_rendered",
    "open_dataset",
    "read_image",
    "training_sets",
]

Image = NDArray[np.uint8]
Sample = tuple[Image, Image]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
DEFAULT_LENGTH = 50
DRIVE_FPS = 20.0


class Dataset(Protocol):
    """A sequence of (image_bgr uint8 [H,W,3], labels uint8 [H,W])."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


def open_dataset(
    name: str,
    size: tuple[int, int],
    length: int | None = None,
    seed: int | None = None,
    num_classes: int = len(CITYSCAPES),
    fps: float = DRIVE_FPS,
) -> Dataset:
    """Open a data set by name, with images of `size` (height, width) in pixels.

    `length` is how many images: the first ones of a folder (all where None), or as many as shall be rendered (50 where
    None); `seed` is the rendered street's, 0 where neither it nor the name says; `fps` how many of them make a second
    of a drive. A folder's images of another size are resized, smoothly, and their labels by nearest neighbour.
    Raises InputError for a name, folder, image or label that cannot be used; a single image's when it is read.
    """
    if length is not None and length < 1:
        raise InputError(f"A data set of {length} images cannot be: ask for 1 or more.")
    kind, _, detail = name.partition(":")
    if is_rendered(name) or not Path(name).is_dir():
        if min(size) < 32:
            raise InputError(f"Scenes of {size[0]}x{size[1]} are too small to be rendered: ask for 32x32 or more.")
        if kind == "streets" and detail in ("", "train", "val"):
            from training.streets import Streets

            return Streets("train" if detail == "train" else "val", size, length or DEFAULT_LENGTH, seed or 0)
        if kind == "drive" and (not detail or detail.isdecimal()):
            if detail and seed not in (None, int(detail)):
                raise InputError(f"{name} and the seed {seed} name two streets: give one of them.")
            return _drive(int(detail or seed or 0), size, length or DEFAULT_LENGTH, fps)
        raise InputError(
            f"There is no data set {name!r}: give `streets`, `streets:train`, `drive`, `drive:SEED`, "
            "or a folder that holds images/ and labels/ (./streets is a folder, too)."
        )
    return Folder(Path(name), size, length, num_classes)


def is_rendered(name: str) -> bool:
    """Whether `name` is one of the rendered sets', whatever folders there are."""
    return name.partition(":")[0] in ("streets", "drive")


class Folder:
    """A folder with `images/` and `labels/`: files of the same stem belong together, in alphabetical order.

    Labels are 8-bit gray images whose pixels are class ids, 255 to ignore. Images keep
    their own sizes where `size` is None. Raises InputError where files do not pair.
    """

    def __init__(
        self, folder: Path, size: tuple[int, int] | None, length: int | None = None, num_classes: int = 19
    ) -> None:
        self.folder, self.size, self.num_classes = folder, size, num_classes
        for part in ("images", "labels"):
            if not (folder / part).is_dir():
                raise InputError(f"{folder} has no folder {part}/: a data set holds images/ and labels/.")
        self.images = sorted(p for p in (folder / "images").iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)[:length]
        if not self.images:
            raise InputError(f"{folder / 'images'} holds no images ({', '.join(IMAGE_SUFFIXES)}): put some there.")
        for image in self.images:
            if not self._label(image).is_file():
                raise InputError(f"{image} has no label: expected {self._label(image)}; add it or take the image away.")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        path = self.images[index]
        image_bgr, labels = read_image(path), read_labels(self._label(path), self.num_classes)
        if image_bgr.shape[:2] != labels.shape:
            raise InputError(
                f"{self._label(path)} is {_size(labels)} and its image {path} is {_size(image_bgr)} "
                "(height x width): they must be of one size."
            )
        if self.size in (None, labels.shape):
            return image_bgr, labels
        height, width = self.size or labels.shape
        smooth = cv2.INTER_AREA if height * width < labels.size else cv2.INTER_LINEAR
        resized = cv2.resize(image_bgr, (width, height), interpolation=smooth)
        return _u8(resized), _u8(cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT))

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def _label(self, image: Path) -> Path:
        return self.folder / "labels" / f"{image.stem}.png"


def read_image(path: Path) -> Image:
    """Read an image file as uint8 [H,W,3], blue-green-red. Raises InputError where it is none."""
    # An orientation tag is not followed: labels were drawn on the pixels as they are stored.
    return _read(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)


def read_labels(path: Path, num_classes: int) -> Image:
    """Read a label map uint8 [H,W]. Raises InputError where it is none or holds ids outside the classes."""
    labels = _read(path, cv2.IMREAD_UNCHANGED)
    if labels.ndim != 2 or labels.dtype != np.uint8:
        channels = 1 if labels.ndim == 2 else labels.shape[2]
        raise InputError(
            f"{path} has {channels} channel(s) of {labels.dtype}: a label map is an 8-bit gray image whose pixels are "
            "class ids (a palette counts as colours); convert it."
        )
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=256)[:IGNORE])
    if present.size and present[-1] >= num_classes:
        raise InputError(
            f"{path} holds label {present[-1]}: labels of {num_classes} classes are 0 to {num_classes - 1}, "
            f"and {IGNORE} for pixels to ignore."
        )
    return labels


def training_sets(
    name: str, size: tuple[int, int], images: int, validation_images: int, cache: Path, num_classes: int = 19
) -> tuple[Dataset, Dataset]:
    """What to train and what to validate on.

    `streets` is rendered once, `images` and `validation_images` of them at `size`, and kept in the folder `cache`. A
    FOLDER is used whole and at its images' own sizes: FOLDER/train and FOLDER/val where it has these, otherwise every
    tenth image is held out for validation.
    """
    if name == "streets":
        from training.streets import Streets, cached

        return cached(Streets("train", size, images), cache), cached(Streets("val", size, validation_images), cache)
    folder = Path(name)
    if (folder / "train").is_dir() and (folder / "val").is_dir():
        train, val = (Folder(folder / split, None, None, num_classes) for split in ("train", "val"))
        return train, val
    if is_rendered(name) or not folder.is_dir():
        raise InputError(f"There is no data set {name!r} to train on: give `streets` or a folder (as ./{name}).")
    whole = Folder(folder, None, None, num_classes)
    if len(whole) < 2:
        raise InputError(f"{folder} holds one image: training needs one and validation another.")
    held_out = range(0, len(whole), 10)
    rest = [index for index in range(len(whole)) if index % 10]
    return _Picked(whole, rest), _Picked(whole, held_out)


class _Picked:
    """The samples of a data set at some of its indices."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.indices[index]]


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


def _drive(seed: int, size: tuple[int, int], length: int, fps: float) -> _Frames:
    from training.streets import Drive

    return _Frames(Drive(seed, size, fps).frame, length)


def _read(path: Path, flags: int) -> Image:
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None
    try:
        # Decoding from memory: imread would print its own complaint about the file on stderr.
        image = cv2.imdecode(data, flags) if data.size else None
    except cv2.error:
        image = None
    if image is None:
        raise InputError(f"{path} is not an image that can be decoded ({data.size} bytes): replace it or take it away.")
    return _u8(image)


def _u8(image: Any) -> Image:
    out: Image = image
    return out


def _size(image: Image) -> str:
    return f"{image.shape[0]}x{image.shape[1]}"
