"""What quantising costs: labels of candidate graphs against float32's labels and against ground truth.

Split batches are independent and each is an evenly spaced grid of pixels, so a search may look at every second or
fourth row and column only and pays a fourth or a sixteenth.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from tqdm import tqdm

from calibration.agreement import Labeller
from calibration.peaks import Extent
from calibration.scored_images import ScoredImages
from splitmerge.labels import THIN_CLASSES
from splitmerge.package import Package
from training.metrics import boundary_counts, boundary_iou, confusion_matrix, iou, mean_of_known

__all__ = ["LEAST_PIXELS", "Budget", "Measured", "Scorer"]

LEAST_PIXELS = 1000
"""Of ground truth that a thin class must have to be counted as the worst: with fewer, one pixel is 0.1 points."""

Labels = NDArray[np.uint8]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """Scores in per cent and what they lie below float32's in points (negative where above). `agreement` is 0..1.

    A drop is the mean over the classes that both have a score for, so it is not always the difference of the means.
    `thin_drop` is that of the worst thin class with `LEAST_PIXELS`, 0 where there is none.
    """

    miou: float
    thin: float | None
    boundary: float
    miou_drop: float
    thin_drop: float
    worst_thin: str | None
    boundary_drop: float
    agreement: float


@dataclass(frozen=True)
class Budget:
    """What may be lost: points of mIoU, of the worst thin class and of boundary IoU, and the share of labels, 0..1,
    that must be float32's. None stands for any.
    """

    miou_drop: float | None = 0.1
    thin_drop: float | None = 0.3
    boundary_drop: float | None = 0.3
    agreement: float | None = 0.995

    def is_met(self, measured: Measured) -> bool:
        """Whether nothing is exceeded."""
        return not self.exceeded(measured)

    def exceeded(self, measured: Measured) -> list[str]:
        """What is, in words."""
        found = []
        if self.miou_drop is not None and measured.miou_drop > self.miou_drop:
            found.append(f"mIoU falls by {measured.miou_drop:.3f} points ({self.miou_drop:g} allowed)")
        if self.thin_drop is not None and measured.thin_drop > self.thin_drop:
            found.append(
                f"the thin class {measured.worst_thin} by {measured.thin_drop:.3f} ({self.thin_drop:g} allowed)"
            )
        if self.boundary_drop is not None and measured.boundary_drop > self.boundary_drop:
            found.append(f"boundary IoU falls by {measured.boundary_drop:.3f} ({self.boundary_drop:g} allowed)")
        if self.agreement is not None and measured.agreement < self.agreement:
            found.append(f"{measured.agreement:.3%} of the labels are float32's ({self.agreement:.3%} asked for)")
        return found

    def share_used(self, measured: Measured) -> float:
        """How much of the budget is used, by what uses most of it; 1 is all."""
        drops = (
            (measured.miou_drop, self.miou_drop),
            (measured.thin_drop, self.thin_drop),
            (measured.boundary_drop, self.boundary_drop),
        )
        shares = [drop / max(allowed, 1e-3) for drop, allowed in drops if allowed is not None]
        if self.agreement is not None:
            shares.append((1 - measured.agreement) / max(1 - self.agreement, 1e-6))
        return max(shares, default=0.0)


class Scorer:
    """Scores graphs on the same images, a split batch at a time. Keeps float32's labels, a byte a pixel."""

    def __init__(
        self,
        package: Package,
        models: Mapping[str, onnx.ModelProto],
        images: ScoredImages,
        progress: bool = True,
        thin: Collection[str] = THIN_CLASSES,
        watch: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        """`models` are the package's float32 graphs by part; `thin` names classes, those that it lacks do not count;
        `watch` the values by part that `extents` is about.
        """
        manifest = package.manifest
        self._cut, self._names = manifest.cut, [entry.name for entry in manifest.classes]
        self._models, self._images, self._progress = models, images, progress
        self._thin, self._watch, self._extents = frozenset(thin), watch or {}, dict[str, Extent]()
        self._references: dict[int, list[Labels]] = {}

    def stride(self, wanted: int) -> int:
        """The largest stride up to `wanted` at which the split batches form a grid."""
        if self._cut is None:
            return 1
        return max(s for s in range(1, wanted + 1) if self._cut.rows % s == 0 and self._cut.columns % s == 0)

    def measure(self, graphs: Mapping[str, onnx.ModelProto], stride: int = 1, what: str = "score") -> Measured:
        """Run graphs (stem and trunk, or model) over all images, every `stride`-th row and column."""
        references = self._reference(stride)
        label = Labeller(graphs, self._cut)
        full, candidate = _Counts(len(self._names)), _Counts(len(self._names))
        agreeing = pixels = 0
        for index in self._bar(what):
            labels = label(self._images.frames[index], stride)
            truth = self._images.truths[index][::stride, ::stride] if self._images.truths else references[index]
            full.add(references[index], truth)
            candidate.add(labels, truth)
            agreeing += int((labels == references[index]).sum())
            pixels += labels.size
        return self._measured(full, candidate, agreeing / pixels)

    def float32(self, stride: int = 1) -> Measured:
        """The score of the float32 graphs themselves."""
        counts = _Counts(len(self._names))
        references = self._reference(stride)
        for index, labels in enumerate(references):
            truth = self._images.truths[index][::stride, ::stride] if self._images.truths else labels
            counts.add(labels, truth)
        return self._measured(counts, counts, 1.0)

    def extents(self, models: Mapping[str, onnx.ModelProto] | None = None) -> dict[str, Extent]:
        """What the watched values of the float32 graphs, or of others that are named alike, hold in all images."""
        if models is None:
            self._reference(1)
            return self._extents
        label = Labeller(models, self._cut, self._watch)
        for index in self._bar("values"):
            label(self._images.frames[index])
        return label.extents

    def _reference(self, stride: int) -> list[Labels]:
        if stride not in self._references:
            if 1 in self._references:
                self._references[stride] = [labels[::stride, ::stride] for labels in self._references[1]]
            else:
                label = Labeller(self._models, self._cut, self._watch if stride == 1 else {})
                self._references[stride] = [label(self._images.frames[i], stride) for i in self._bar("float32")]
                self._extents = label.extents or self._extents
        return self._references[stride]

    def _bar(self, what: str) -> "tqdm[int]":
        indices = range(len(self._images.frames))
        return tqdm(indices, desc=what, unit="image", leave=False, disable=None if self._progress else True)

    def _measured(self, full: "_Counts", candidate: "_Counts", agreement: float) -> Measured:
        drops = 100 * (full.iou - candidate.iou)
        thin = [index for index, name in enumerate(self._names) if name in self._thin]
        known = [index for index in thin if not np.isnan(drops[index])]
        counted = [index for index in known if candidate.pixels[index] >= LEAST_PIXELS]
        worst = max(counted, key=lambda index: float(drops[index]), default=None)
        return Measured(
            miou=100 * mean_of_known(candidate.iou),
            thin=100 * mean_of_known(candidate.iou[thin]) if known else None,
            boundary=100 * mean_of_known(candidate.boundary_iou),
            miou_drop=mean_of_known(drops),
            thin_drop=0.0 if worst is None else float(drops[worst]),
            worst_thin=None if worst is None else self._names[worst],
            boundary_drop=100 * mean_of_known(full.boundary_iou - candidate.boundary_iou),
            agreement=agreement,
        )


class _Counts:
    def __init__(self, classes: int) -> None:
        self._confusion = np.zeros((classes, classes), np.int64)
        self._boundary = np.zeros((2, classes), np.int64)

    def add(self, labels: Labels, truth: Labels) -> None:
        self._confusion += confusion_matrix(labels, truth, len(self._confusion))
        self._boundary += boundary_counts(labels, truth, len(self._confusion))

    @property
    def pixels(self) -> NDArray[np.int64]:
        """Of ground truth, by class."""
        counts: NDArray[np.int64] = self._confusion.sum(axis=1)
        return counts

    @property
    def iou(self) -> Floats:
        return iou(self._confusion)

    @property
    def boundary_iou(self) -> Floats:
        return boundary_iou(self._boundary)
