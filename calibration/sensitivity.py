"""What each convolution costs when it alone is int8, as numbers and as a picture."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.score import Measured
from splitmerge.errors import InputError
from splitmerge.files import new_file

__all__ = ["draw_sensitivity", "sensitivity"]

_ROW, _LEFT, _BAR, _TOP = 26, 220, 200, 64
_COLUMNS = (
    ("mIoU, points", (180, 110, 20)),
    ("worst thin class, points", (40, 40, 210)),
    ("boundary IoU, points", (40, 140, 40)),
    ("labels changed, %", (130, 130, 130)),
)


def sensitivity(
    layers: Iterable[str], measure: Callable[[frozenset[str]], Measured], log: Callable[[str, Measured], None]
) -> dict[str, Measured]:
    """The score with each layer alone in int8; `measure(left_out)` scores the network without those layers."""
    names = list(layers)
    alone = {}
    for name in names:
        alone[name] = measure(frozenset(names) - {name})
        log(name, alone[name])
    return alone


def draw_sensitivity(alone: Mapping[str, Measured], path: Path) -> None:
    """Write a picture: layers from the input down, a bar for what each costs; what is gained goes to the left."""
    width = _LEFT + len(_COLUMNS) * (_BAR + 30)
    canvas = np.full((_TOP + _ROW * len(alone) + 20, width, 3), 255, np.uint8)
    _text(canvas, "What each convolution costs when it alone is int8", (12, 24))
    costs = np.array([(m.miou_drop, m.thin_drop, m.boundary_drop, 100 * (1 - m.agreement)) for m in alone.values()])
    for row, name in enumerate(alone):
        y = _TOP + _ROW * row
        if row % 2:
            cv2.rectangle(canvas, (0, y), (width, y + _ROW), (246, 246, 246), -1)
        _text(canvas, name, (12, y + 18))
    for column, (title, colour) in enumerate(_COLUMNS):
        left = _LEFT + column * (_BAR + 30)
        _text(canvas, title, (left, _TOP - 12))
        lowest, highest = min(0.0, float(costs[:, column].min())), max(0.0, float(costs[:, column].max()))
        scale = (_BAR - 60) / max(highest - lowest, 1e-9)
        zero = left - round(lowest * scale)
        for row, value in enumerate(costs[:, column]):
            y = _TOP + _ROW * row
            end = zero + round(float(value) * scale)
            cv2.rectangle(canvas, (min(zero, end), y + 5), (max(zero, end), y + _ROW - 6), colour, -1)
            _text(canvas, f"{value:.3f}", (left + _BAR - 52, y + 18), 0.42)
        cv2.line(canvas, (zero, _TOP), (zero, _TOP + _ROW * len(alone)), (90, 90, 90), 1)
    with new_file(path) as temporary:
        if not cv2.imwrite(str(temporary), canvas):
            raise InputError(f"{path} cannot be written as a picture: name a .png file.")


def _text(canvas: NDArray[np.uint8], text: str, at: tuple[int, int], size: float = 0.48) -> None:
    cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, (40, 40, 40), 1, cv2.LINE_AA)
