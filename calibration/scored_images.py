"""Images to score quantised graphs on: others than those that gave the ranges, wherever there are others.

    streets           its validation split, of another seed than the one that comparing scores by default
    drive, FOLDER,    frames of the same that were not calibrated with; all of them again where there are no more
    video, image

Rendered sets and folders with labels/ have ground truth. Without, float32's labels are the truth.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from calibration.images import DataHash, open_images
from splitmerge.errors import InputError
from training.data import is_labelled, is_rendered, open_dataset

__all__ = ["SCORE_IMAGES", "STREETS_SEED", "ScoredImages", "fingerprint", "scored_images"]

SCORE_IMAGES = 32

STREETS_SEED = 2
"""Comparing scores seed 0 and the table of the paper's claim seed 1: what chose a precision should not judge it."""

Frame = NDArray[np.uint8]
Labels = NDArray[np.uint8]
_T = TypeVar("_T")


@dataclass(frozen=True)
class ScoredImages:
    """Frames uint8 `[H,W,3]` and, where there is ground truth, labels uint8 `[H,W]`, in memory.

    `held_out` says that none of them was calibrated with. `sha256` is of frames and truths.
    """

    name: str
    frames: tuple[Frame, ...]
    truths: tuple[Labels, ...]
    held_out: bool
    sha256: str

    @property
    def words(self) -> str:
        """What they are, for a person."""
        same = "" if self.held_out else ", which the ranges come from, too: there were no others"
        truth = "ground truth" if self.truths else "no ground truth: float32's labels are taken for it"
        return f"{len(self.frames)} images of {self.name}{same}; {truth}"


def fingerprint(frame: Frame) -> str:
    """What two frames with the same pixels share."""
    return sha256(np.ascontiguousarray(frame).data).hexdigest()


def scored_images(
    data: str, size: tuple[int, int], classes: int, used: set[str], calibrated: int, count: int = SCORE_IMAGES
) -> ScoredImages:
    """Up to `count` images of `data` at `size` (height, width), without those in `used` (fingerprints) if possible.

    `calibrated` is how many images were asked for to calibrate with. Raises InputError for data that cannot be used,
    and where no pixel has a class.
    """
    name = "streets, validation split" if data.partition(":")[0] == "streets" else data
    # Gone through twice, so that only what is scored is ever in memory.
    new = [fingerprint(frame) not in used for frame, _ in _candidates(data, size, classes, calibrated, count)]
    held_out = any(new)
    wanted = set(_spread([index for index, is_new in enumerate(new) if is_new or not held_out], count))
    candidates = enumerate(_candidates(data, size, classes, calibrated, count))
    chosen = [pair for index, pair in candidates if index in wanted]
    frames = tuple(frame for frame, _ in chosen)
    truths = tuple(truth for _, truth in chosen if truth is not None)
    if truths and all((truth >= classes).all() for truth in truths):
        raise InputError(
            f"None of the pixels of {data} that would be scored has a class: give labels to score against."
        )
    digest = DataHash()
    for array in (*frames, *truths):
        digest.update(array)
    return ScoredImages(name, frames, truths, held_out, digest.sha256)


def _candidates(
    data: str, size: tuple[int, int], classes: int, calibrated: int, count: int
) -> Iterator[tuple[Frame, Labels | None]]:
    total = calibrated + count
    if data.partition(":")[0] == "streets":
        dataset = open_dataset("streets", size, count, STREETS_SEED, classes)
    elif is_rendered(data):
        dataset = open_dataset(data, size, total, num_classes=classes, fps=1.0)
    elif is_labelled(data):
        dataset = open_dataset(data, size, num_classes=classes)
    else:
        frames: Iterable[Frame] = open_images(data, size, total)
        yield from ((frame, None) for frame in frames)
        return
    yield from (dataset[index] for index in _spread(list(range(len(dataset))), total))


def _spread(things: list[_T], count: int) -> list[_T]:
    """`count` of the things at equal distances, all where there are no more."""
    if len(things) <= count:
        return things
    return [things[(2 * index + 1) * len(things) // (2 * count)] for index in range(count)]
