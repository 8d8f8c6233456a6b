"""A comparison for people: a table to print and a picture to look at."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.compare import Comparison
from runtime.drawing import PAPER, legend, marked, put_text, text_width
from runtime.examples import Example
from splitmerge.labels import IGNORE, THIN_CLASSES, LabelClass, palette_bgr
from training.metrics import mean_of_known

__all__ = ["picture", "table"]

Image = NDArray[np.uint8]

COLUMNS = ("frame", "ground truth", "PyTorch", "engine", "difference")
MARGIN, CAPTION, CAPITALS = 8, 26, 10


def table(result: Comparison) -> str:
    """Per class and in the mean: IoU of reference and engine in percent, and the difference in points.

    Behind them the reference's IoU at several scales, where that was scored.
    """
    scored = [result.reference, result.engine, *([result.multi_scale] if result.multi_scale else [])]
    headings = f"{'class':<24}{'reference':>11}{'engine':>11}{'points':>11}"
    rows = [headings + f"{'multi-scale':>13}" * (len(scored) - 2)]
    line = "-" * (57 + 13 * (len(scored) - 2))
    rows.append(line)
    for entry, values in zip(result.classes, zip(*(score.iou for score in scored), strict=True), strict=True):
        rows.append(_row(entry.name + ("  (thin)" if entry.name in THIN_CLASSES else ""), values))
    rows.append(line)
    rows.append(_row("mIoU", [score.miou for score in scored]))
    thin = [index for index, entry in enumerate(result.classes) if entry.name in THIN_CLASSES]
    if thin:
        rows.append(_row("mIoU, thin classes", [mean_of_known(score.iou[thin]) for score in scored]))
    rows.append(_row("boundary IoU", [score.boundary_miou for score in scored]))
    rows.append("")
    differing = result.pixels - result.agreeing
    rows.append(
        f"pixel agreement {100 * result.pixel_agreement:.4f} % ({differing:,} of {result.pixels:,} pixels differ, "
        f"{result.images} images)"
    )
    names = ("reference", "engine", "multi-scale")
    times = ", ".join(f"{name} {score.ms_per_frame:.1f} ms" for name, score in zip(names, scored, strict=False))
    rows.append(f"per frame: {times}")
    return "\n".join(rows)


def picture(
    examples: Sequence[Example], classes: tuple[LabelClass, ...], cell_width: int = 384, title: str = ""
) -> Image:
    """A grid uint8 [h,w,3] with a row for each example, a column for each of COLUMNS, and a legend below."""
    height, width = examples[0].truth.shape
    cell = (max(1, round(cell_width * height / width)), cell_width)
    total = MARGIN + (cell_width + MARGIN) * len(COLUMNS)
    parts = [_header(total, cell_width, title)]
    parts += [_example_row(example, classes, cell) for example in examples]
    if any((example.truth == IGNORE).any() for example in examples):
        classes = (*classes, LabelClass("not scored", (0, 0, 0)))
    parts.append(legend(classes, total, CAPITALS))
    return np.vstack(parts)


def _row(name: str, values: Sequence[float]) -> str:
    expected, found, *more = values
    difference = f"{100 * (found - expected):+.3f}" if not math.isnan(found - expected) else "-"
    columns = f"{_percent(expected):>11}{_percent(found):>11}{difference:>11}"
    return f"{name:<24}{columns}" + "".join(f"{_percent(value):>13}" for value in more)


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _header(total: int, cell_width: int, title: str) -> Image:
    strip = _blank((CAPTION + MARGIN) * (2 if title else 1) - MARGIN, total)
    if title:
        put_text(strip, title, MARGIN, CAPTION - 4, CAPITALS + 4)
    for column, name in enumerate(COLUMNS):
        x = MARGIN + column * (cell_width + MARGIN) + (cell_width - text_width(name, CAPITALS + 1)) // 2
        put_text(strip, name, x, strip.shape[0] - MARGIN, CAPITALS + 1)
    return strip


def _example_row(example: Example, classes: tuple[LabelClass, ...], cell: tuple[int, int]) -> Image:
    colours = palette_bgr(classes)
    cells = [
        example.image_bgr,
        colours[example.truth],
        colours[example.reference],
        colours[example.engine],
        marked(example.image_bgr, example.reference != example.engine),
    ]
    height, width = cell
    row = _blank(height + CAPTION, MARGIN + (width + MARGIN) * len(cells))
    for column, image in enumerate(cells):
        x = MARGIN + column * (width + MARGIN)
        row[:height, x : x + width] = _shrunk(image, cell)
    note = f"{example.differing:,} of {example.truth.size:,} pixels differ"
    x = row.shape[1] - MARGIN - text_width(note, CAPITALS - 1)
    put_text(row, note, x, height + CAPITALS + 6, CAPITALS - 1)
    return row


def _shrunk(image: Image, cell: tuple[int, int]) -> Image:
    smaller = cell[0] * cell[1] < image.shape[0] * image.shape[1]
    return np.asarray(
        cv2.resize(image, cell[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_NEAREST), np.uint8
    )


def _blank(height: int, width: int) -> Image:
    return np.full((height, width, 3), PAPER, np.uint8)
