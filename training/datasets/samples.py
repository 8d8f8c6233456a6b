"""The samples of a data set: pairs of files, read when they are asked for."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import cv2
import numpy as np

from splitmerge.errors import InputError
from training.datasets.layout import Pair
from training.datasets.reading import Decode, Image, read_image

__all__ = ["Dataset", "Joined", "Picked", "Sample", "Samples", "read_pair"]

Sample = tuple[Image, Image]


class Dataset(Protocol):
    """A sequence of (image_bgr uint8 [H,W,3], labels uint8 [H,W])."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


def read_pair(pair: Pair, decode: Decode) -> Sample:
    """Read image uint8 [H,W,3] and labels uint8 [H,W]. Raises InputError where their sizes differ."""
    image_bgr, labels = read_image(pair.image), decode(pair.label)
    if image_bgr.shape[:2] != labels.shape:
        raise InputError(
            f"{pair.label} is {_size(labels)} and its image {pair.image} is {_size(image_bgr)} "
            "(height x width): they must be of one size."
        )
    return image_bgr, labels


@dataclass(frozen=True)
class Samples:
    """A sequence of (image_bgr uint8 [H,W,3], labels uint8 [H,W]).

    Resized to `size` (height, width): images smoothly, labels to the nearest pixel. Where it is None, images keep
    their own sizes, but for those wider than `width`, which are shrunk to it.
    """

    pairs: Sequence[Pair]
    decode: Decode
    size: tuple[int, int] | None = None
    width: int | None = None

    def __post_init__(self) -> None:
        """Raises InputError for the first label that is missing."""
        for pair in self.pairs:
            if not pair.label.is_file():
                raise InputError(
                    f"{pair.image} has no label: expected {pair.label}; add it or take the image away "
                    "(`splitmerge data check` lists all that is missing)."
                )

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        image_bgr, labels = read_pair(self.pairs[index], self.decode)
        height, width = self._size_of(*labels.shape)
        if (height, width) == labels.shape:
            return image_bgr, labels
        smooth = cv2.INTER_AREA if height * width < labels.size else cv2.INTER_LINEAR
        resized = cv2.resize(image_bgr, (width, height), interpolation=smooth)
        nearest = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        return np.asarray(resized, np.uint8), np.asarray(nearest, np.uint8)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def _size_of(self, height: int, width: int) -> tuple[int, int]:
        if self.size is not None:
            return self.size
        if self.width is not None and width > self.width:
            return round(height * self.width / width), self.width
        return height, width


class Joined:
    """Several data sets, one after the other."""

    def __init__(self, sets: Sequence[Dataset]) -> None:
        self.sets, self.ends = sets, list(accumulate(len(part) for part in sets))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = bisect_right(self.ends, index)
        return self.sets[which][index - (self.ends[which - 1] if which else 0)]


class Picked:
    """The samples of a data set at some of its indices."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.indices[index]]


def _size(image: Image) -> str:
    return f"{image.shape[0]}x{image.shape[1]}"
