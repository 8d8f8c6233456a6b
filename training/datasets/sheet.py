"""A contact sheet: some samples of a data set, each image above its labels in their classes' colours, and a legend."""

from collections.abc import Sequence

import cv2
import numpy as np

from splitmerge.labels import IGNORE, LabelClass, colours_from_labels
from training.datasets.layout import Pair
from training.datasets.reading import Decode, Image
from training.datasets.samples import read_pair

__all__ = ["contact_sheet"]

_TILE, _COLUMNS, _CAPTION, _MARGIN = 320, 4, 18, 6
_FONT, _DARK, _BRIGHT = cv2.FONT_HERSHEY_SIMPLEX, (32, 32, 32), (235, 235, 235)


def contact_sheet(pairs: Sequence[Pair], decode: Decode, classes: tuple[LabelClass, ...], most: int = 12) -> Image:
    """Up to `most` of the samples, evenly spread: uint8 [H,W,3], blue-green-red.

    Ignored pixels show the image, darkened. Raises InputError for a file that cannot be read.
    """
    count = min(most, len(pairs))
    chosen = [pairs[(2 * index + 1) * len(pairs) // (2 * count)] for index in range(count)]
    tiles = [_tile(pair, decode, classes) for pair in chosen]
    rows = [_row(tiles[first : first + _COLUMNS]) for first in range(0, count, _COLUMNS)]
    return np.concatenate([*rows, _legend(classes)])


def _tile(pair: Pair, decode: Decode, classes: tuple[LabelClass, ...]) -> Image:
    image_bgr, labels = read_pair(pair, decode)
    height = max(1, round(_TILE * image_bgr.shape[0] / image_bgr.shape[1]))
    image = np.asarray(cv2.resize(image_bgr, (_TILE, height), interpolation=cv2.INTER_AREA), np.uint8)
    small = np.asarray(cv2.resize(labels, (_TILE, height), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
    painted = colours_from_labels(small, classes)
    painted[small == IGNORE] = image[small == IGNORE] // 4
    caption = np.full((_CAPTION, _TILE, 3), _DARK, np.uint8)
    _write(caption, pair.image.name, (3, 13), _TILE - 6)
    return np.concatenate([caption, image, painted])


def _row(tiles: list[Image]) -> Image:
    """Tiles side by side, on a ground as high as the highest, always as wide as a full row."""
    row = np.full((max(len(tile) for tile in tiles) + _MARGIN, _COLUMNS * (_TILE + _MARGIN), 3), _DARK, np.uint8)
    for index, tile in enumerate(tiles):
        left = index * (_TILE + _MARGIN)
        row[: len(tile), left : left + _TILE] = tile
    return row


def _legend(classes: tuple[LabelClass, ...]) -> Image:
    columns = 2 * _COLUMNS
    width = _COLUMNS * (_TILE + _MARGIN)
    step = width // columns
    legend = np.full((-(-len(classes) // columns) * _CAPTION + _MARGIN, width, 3), _DARK, np.uint8)
    for index, entry in enumerate(classes):
        top, left = index // columns * _CAPTION + _MARGIN // 2, index % columns * step
        legend[top + 2 : top + _CAPTION - 2, left + 3 : left + 23] = entry.rgb[::-1]
        _write(legend, f"{index} {entry.name}", (left + 28, top + 13), step - 32)
    return legend


def _write(ground: Image, text: str, at: tuple[int, int], width: int) -> None:
    """Write a line, its beginning cut off where it is too long; OpenCV's font has ASCII only."""
    text = text.encode("ascii", "replace").decode()
    while len(text) > 4 and cv2.getTextSize(text, _FONT, 0.4, 1)[0][0] > width:
        text = f"..{text[3:]}"
    cv2.putText(ground, text, at, _FONT, 0.4, _BRIGHT, 1, cv2.LINE_AA)
