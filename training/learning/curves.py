"""A run's curves as a picture: loss and mIoU over steps."""

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

from training.datasets.reading import Image

__all__ = ["curves"]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 260, 64, 20, 30, 34
_GROUND, _GRID, _INK = (255, 255, 255), (225, 225, 225), (60, 60, 60)
_LOSS, _MIOU = (40, 90, 210), (150, 90, 20)  # blue-green-red
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def curves(rows: Sequence[dict[str, float]]) -> Image:
    """Loss above and mIoU (in %) below, over the steps of the rows: uint8 [H,W,3], blue-green-red."""
    steps = [row["step"] for row in rows]
    loss = _panel("mean training loss since the last validation", steps, [row["loss"] for row in rows], _LOSS)
    miou = _panel("validation mIoU in %", steps, [100 * row["miou"] for row in rows], _MIOU)
    return np.concatenate([loss, miou])


def _panel(title: str, steps: Sequence[float], values: Sequence[float], colour: tuple[int, int, int]) -> Image:
    panel = np.full((_HEIGHT, _WIDTH, 3), _GROUND, np.uint8)
    cv2.putText(panel, title, (_LEFT, 20), _FONT, 0.5, _INK, 1, cv2.LINE_AA)
    known = [(step, value) for step, value in zip(steps, values, strict=True) if np.isfinite(value)]
    across, up = _ticks(0, max([*steps, 1])), _ticks(0, max([value for _, value in known] + [1e-6]))

    def place(step: float, value: float) -> tuple[int, int]:
        x = _LEFT + step / across[-1] * (_WIDTH - _LEFT - _RIGHT)
        return round(x), round(_HEIGHT - _BOTTOM - max(0.0, value) / up[-1] * (_HEIGHT - _TOP - _BOTTOM))

    for tick in up:
        x, y = place(0, tick)
        cv2.line(panel, (x, y), (_WIDTH - _RIGHT, y), _GRID)
        _text(panel, f"{tick:.6g}", (x - 6, y + 4), 1.0)
    for tick in across:
        x, y = place(tick, 0)
        cv2.line(panel, (x, y), (x, y + 4), _INK)
        _text(panel, f"{tick:,.6g}", (x, y + 18), 1.0 if tick == across[-1] else 0.5)
    points = [place(*point) for point in known]
    for start, end in pairwise(points):
        cv2.line(panel, start, end, colour, 2, cv2.LINE_AA)
    for point in points:
        cv2.circle(panel, point, 3, colour, -1, cv2.LINE_AA)
    return panel


def _ticks(least: float, greatest: float) -> list[float]:
    """Four to seven round numbers from the least to beyond the greatest."""
    rough = (greatest - least) / 5
    power = 10.0 ** np.floor(np.log10(rough))
    step = float(power * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough))
    return [least + step * index for index in range(int(np.ceil((greatest - least) / step - 1e-9)) + 1)]


def _text(panel: Image, text: str, at: tuple[int, int], share_before: float) -> None:
    """Write so that this share of the text's width lies left of `at`."""
    width = cv2.getTextSize(text, _FONT, 0.4, 1)[0][0]
    cv2.putText(panel, text, (round(at[0] - share_before * width), at[1]), _FONT, 0.4, _INK, 1, cv2.LINE_AA)
