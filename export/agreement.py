"""When two segmentations agree: the rule of `export.verify`, on arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["TOLERANCE", "Comparison", "Reference"]

TOLERANCE = 1e-4
"""Of the logits' scale. Float32 networks of 20 to 100 layers were measured at 1e-6 to 1e-5."""


@dataclass(frozen=True)
class Comparison:
    """One thing held against PyTorch in float32; `relative_error` is of the logits' scale.

    `wrong_labels` are pixels with another label that is no near tie.
    """

    compared: str
    max_error: float
    relative_error: float
    label_agreement: float
    wrong_labels: int

    @property
    def holds(self) -> bool:
        return self.wrong_labels == 0 and self.relative_error <= TOLERANCE  # not so for NaN


class Reference:
    """PyTorch's logits float32 `[N,classes,H,W]`, and what follows from them.

    `scale` is their largest magnitude, `near_ties` marks the pixels whose two best logits lie within TOLERANCE of it.
    """

    def __init__(self, logits: NDArray[np.float32]) -> None:
        self.logits = logits
        self.labels = logits.argmax(1).astype(np.uint8)
        self.scale = max(float(np.abs(logits).max()), float(np.finfo(np.float32).tiny))
        second, best = np.moveaxis(np.partition(logits, -2, axis=1)[:, -2:], 1, 0)
        self.near_ties = best - second <= TOLERANCE * self.scale

    def compare(self, name: str, labels: NDArray[np.uint8], logits: NDArray[np.float32]) -> Comparison:
        """Hold labels `[N,H,W]` and logits against the reference."""
        error = float(np.abs(logits - self.logits).max())
        differ = labels != self.labels
        return Comparison(
            name,
            _short(error),
            _short(error / self.scale),
            float(1 - differ.mean()),
            int((differ & ~self.near_ties).sum()),
        )


def _short(number: float) -> float:
    """Three digits: what lies behind them changes with the number of threads."""
    return float(f"{number:.3g}")
