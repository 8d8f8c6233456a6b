"""Look at every file of a data set: what is missing, unreadable or labelled with what the data set does not have.

Files are read as a training would read them, a few at a time on threads; only counts and problems are kept.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitmerge.errors import InputError
from splitmerge.labels import IGNORE
from training.datasets.known import Located
from training.datasets.layout import Listing, Pair
from training.datasets.reading import Decode, ForeignLabel, read_image

__all__ = ["Problem", "SplitReport", "check_splits"]

_AT_A_TIME = 64


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: its kind in two words, the file, and a sentence."""

    kind: str
    file: str
    words: str


@dataclass
class SplitReport:
    """What one split holds. `pixels[label]` and `images_with[label]` count over all usable samples."""

    split: str
    images: int = 0
    usable: list[Pair] = field(default_factory=list)
    sizes: Counter[str] = field(default_factory=Counter)
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    images_with: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    unlabelled: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    def facts(self, names: list[str]) -> dict[str, Any]:
        """For JSON: everything that was counted, per class by name."""
        return {
            "split": self.split,
            "images": self.images,
            "usable": len(self.usable),
            "without_any_class": self.unlabelled,
            "sizes": dict(self.sizes.most_common()),
            "pixels": {name: int(self.pixels[index]) for index, name in enumerate(names)},
            "images_with": {name: int(self.images_with[index]) for index, name in enumerate(names)},
            "pixels_ignored": int(self.pixels[IGNORE]),
            "notes": list(self.notes),
            "problems": [vars(problem) for problem in self.problems],
        }


def check_splits(located: Located, progress: Callable[[int, int], None] | None = None) -> list[SplitReport]:
    """Check the split that is named, or every one that is there; files of two splits are read once.

    `progress(done, total)` is called as files are done. Raises InputError where no split can be listed at all, and for
    a named one that cannot.
    """
    layout = located.layout
    decode = layout.decoder(located.root)
    names = [located.split] if located.split else list(layout.splits)
    listings: dict[str, Listing] = {}
    reports, failed, seen = [], [], set[Pair]()
    for name in names:
        try:
            listings[name] = layout.listing(located.root, name)
        except InputError as error:
            failed.append(error)
            if name in (layout.training, layout.validation):
                problem = Problem("missing split", str(located.root), str(error))
                reports.append(SplitReport(name, problems=[problem]))
    if not listings:
        raise failed[0]
    todo: dict[str, list[Pair]] = {}
    for name, listing in listings.items():  # of splits that overlap, such as trainval, what is new
        todo[name] = [pair for pair in listing.pairs if pair not in seen]
        seen.update(todo[name])
    done, total = 0, len(seen)
    for name, listing in listings.items():
        if listing.pairs and not todo[name]:
            continue
        report = SplitReport(name, len(todo[name]), notes=listing.notes)
        reports.append(report)
        for label in listing.spare:
            words = f"{label} has no image: add the image or take the label away."
            report.problems.append(Problem("label without image", str(label), words))
        for pair, found in _examined(todo[name], decode):
            _count(report, pair, found)
            done += 1
            if progress:
                progress(done, total)
    return sorted(reports, key=lambda report: names.index(report.split))


@dataclass(frozen=True)
class _Sound:
    """What is kept of a usable sample: its size and how many pixels have each label, int64 [256]."""

    size: str
    counts: NDArray[np.int64]


def _examined(pairs: list[Pair], decode: Decode) -> Iterator[tuple[Pair, Problem | _Sound]]:
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for first in range(0, len(pairs), _AT_A_TIME):
            some = pairs[first : first + _AT_A_TIME]
            yield from zip(some, threads.map(lambda pair: _examine(pair, decode), some), strict=True)


def _examine(pair: Pair, decode: Decode) -> Problem | _Sound:
    """Read a sample and tell what is wrong with it, if anything is."""
    image, label = str(pair.image), str(pair.label)
    if not pair.image.is_file():
        return Problem("missing image", image, f"There is no image {image}, which its split names: unpack it again.")
    if not pair.label.is_file():
        return Problem(
            "missing label", label, f"{image} has no label: expected {label}; add it or take the image away."
        )
    try:
        size = read_image(pair.image).shape[:2]
    except InputError as error:
        return Problem("unreadable image", image, str(error))
    try:
        labels = decode(pair.label)
    except ForeignLabel as error:
        return Problem("foreign label", label, str(error))
    except InputError as error:
        return Problem("unreadable label", label, str(error))
    if size != labels.shape:
        words = f"{label} is {_by(labels.shape)} and its image {image} is {_by(size)} (height x width)"
        return Problem("sizes differ", label, f"{words}: they must be of one size.")
    return _Sound(_by(size), np.bincount(labels.ravel(), minlength=256))


def _count(report: SplitReport, pair: Pair, found: Problem | _Sound) -> None:
    if isinstance(found, Problem):
        report.problems.append(found)
        return
    report.usable.append(pair)
    report.sizes[found.size] += 1
    report.pixels += found.counts
    report.images_with += found.counts > 0
    report.unlabelled += not found.counts[:IGNORE].any()


def _by(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"
