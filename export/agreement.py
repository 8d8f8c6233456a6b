"""When two segmentations agree: the rule of `export.verify`, on arrays."""

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["LOGITS_TOLERANCE", "TIE", "Agreement", "TorchReference", "flat_pixels"]

_Real = TypeVar("_Real", bound=np.floating[Any])

TIE = 1e-4
"""In units of the logits: the two best of a pixel that lie this close may change places.

Rounding was measured at 1e-6 of the largest logit, so that this is wide enough for logits up to about 50 (trained
networks stay below 30) and is not widened for those with larger ones.
"""

LOGITS_TOLERANCE = 1e-4
"""Of the largest logit. Float32 networks of 20 to 100 layers were measured at 1e-6 to 1e-5."""


@dataclass(frozen=True)
class Agreement:
    """One thing held against PyTorch in float32, on `pixels` pixels of which `near_ties` are.

    `relative_error` is of `logits_scale`, the largest magnitude in PyTorch's logits. `wrong_labels` are pixels with
    another label that is no near tie, or a near tie with a label that is neither of the two best. `widest_change` is
    how far PyTorch's logits of two classes are apart, at most, where the one has taken the other's place.
    """

    compared: str
    size: tuple[int, int]
    pixels: int
    near_ties: int
    logits_scale: float
    max_error: float
    relative_error: float
    label_agreement: float
    wrong_labels: int
    widest_change: float

    @property
    def holds(self) -> bool:
        return self.wrong_labels == 0 and self.relative_error <= LOGITS_TOLERANCE  # not so for NaN


class TorchReference:
    """PyTorch's logits float32 `[N,classes,H,W]` for frames of `size` (height, width), and what follows from them.

    `scale` is their largest magnitude, `near_ties` marks the pixels whose two best logits lie within `tie`.
    """

    def __init__(self, logits: NDArray[np.float32], size: tuple[int, int], tie: float = TIE) -> None:
        self.logits, self.size = logits, size
        self.labels = logits.argmax(1).astype(np.uint8)
        self.scale = max(float(np.abs(logits).max()), float(np.finfo(np.float32).tiny))
        self._second, self._best = np.moveaxis(np.partition(logits, -2, axis=1)[:, -2:], 1, 0)
        self.near_ties = self._best - self._second <= tie

    def compare(self, name: str, labels: NDArray[np.uint8], logits: NDArray[np.float32]) -> Agreement:
        """Hold labels `[N,H,W]` and logits against the reference."""
        error = float(np.abs(logits - self.logits).max())
        differ = labels != self.labels
        known = np.minimum(labels, self.logits.shape[1] - 1)  # a label of no class is wrong in any case
        chosen = np.take_along_axis(self.logits, known[:, None].astype(np.int64), axis=1)[:, 0]
        allowed = self.near_ties & (chosen >= self._second) & (known == labels)
        return Agreement(
            compared=name,
            size=self.size,
            pixels=labels.size,
            near_ties=int(self.near_ties.sum()),
            logits_scale=_short(self.scale),
            max_error=_short(error),
            relative_error=_short(error / self.scale),
            label_agreement=float(1 - differ.mean()),
            wrong_labels=int((differ & ~allowed).sum()),
            widest_change=_short(float((self._best - chosen)[differ].max(initial=0))),
        )


def flat_pixels(logits: list[NDArray[_Real]]) -> NDArray[_Real]:
    """Logits `[1,classes,h,w]` of several sizes as one list of pixels, `[1,classes,1,pixels]`."""
    return np.concatenate([part.reshape(1, part.shape[1], 1, -1) for part in logits], axis=3)


def _short(number: float) -> float:
    """Three digits: what lies behind them changes with the number of threads."""
    return float(f"{number:.3g}")
