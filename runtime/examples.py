"""Images of a comparison that are kept to be looked at: evenly spread ones, and the worst."""

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splitmerge.labels import IGNORE
from training.datasets.samples import Dataset, Samples

__all__ = ["Example", "Worst", "name_of"]

Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Example:
    """One image of the comparison, kept for a picture. Arrays uint8 [H,W,3] and [H,W]. `name` is its file's, if any."""

    index: int
    image_bgr: NDArray[np.uint8]
    truth: Labels
    reference: Labels
    engine: Labels
    name: str = ""

    @property
    def differing(self) -> int:
        """Pixels on which engine and reference differ."""
        return int(np.count_nonzero(self.reference != self.engine))

    @property
    def scored(self) -> int:
        """Pixels that have a class in the ground truth."""
        return int(np.count_nonzero(self.truth != IGNORE))

    @property
    def wrong(self) -> int:
        """Scored pixels on which the engine is wrong."""
        return self._errors(self.engine)

    @property
    def reference_wrong(self) -> int:
        """Scored pixels on which the reference is wrong."""
        return self._errors(self.reference)

    def _errors(self, labels: Labels) -> int:
        return int(np.count_nonzero((labels != self.truth) & (self.truth != IGNORE)))


class Worst:
    """Keeps the `count` images on which the engine differs most from the reference, and as many on which it is most
    wrong: memory for twice `count` images, however many there are. Of equals the first stays."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._differing: list[tuple[float, int, Example]] = []
        self._wrong: list[tuple[float, int, Example]] = []

    def add(self, example: Example) -> None:
        """Look at one image; those with no such pixel are not kept."""
        self._keep(self._differing, example.differing / example.truth.size, example)
        self._keep(self._wrong, example.wrong / max(1, example.scored), example)

    @property
    def differing(self) -> list[Example]:
        """Where engine and reference differ, most first."""
        return [example for _, _, example in sorted(self._differing, reverse=True)]

    @property
    def wrong(self) -> list[Example]:
        """Where the engine differs from the ground truth, by its share of the scored pixels, most first."""
        return [example for _, _, example in sorted(self._wrong, reverse=True)]

    def _keep(self, heap: list[tuple[float, int, Example]], share: float, example: Example) -> None:
        if not share:
            return
        heapq.heappush(heap, (share, -example.index, example))  # indices differ: examples are never compared
        if len(heap) > self._count:
            heapq.heappop(heap)


def name_of(dataset: Dataset, index: int) -> str:
    """The file name of an image that comes from a file; empty for others."""
    return dataset.pairs[index].image.name if isinstance(dataset, Samples) else ""
