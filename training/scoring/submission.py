"""Predictions as the Cityscapes test server takes them: PNGs of label ids, a pixel each, in the image's own size.

    DIR/CITY_SEQUENCE_FRAME_labelIds.png       label ids (not train ids) of CITY_SEQUENCE_FRAME_leftImg8bit.png

Zip the PNGs. Each is written whole or not at all, and `.made-by.json` beside them says what they were made by: an
interrupted call goes on with the images that are left, and another network's predictions are not mixed in.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from splitmerge.errors import InputError
from splitmerge.files import new_file, read_json, writable_folder, write_json
from splitmerge.labels import IGNORE
from training.datasets.cityscapes import TRAIN_ID_OF
from training.datasets.reading import read_values

__all__ = ["Submission"]

_MADE_BY = ".made-by.json"
_ID_OF = np.zeros(256, np.uint8)
for _value, _train_id in TRAIN_ID_OF.items():
    if _train_id != IGNORE:
        _ID_OF[_train_id] = _value


class Submission:
    """A folder of predictions, all made by one thing."""

    def __init__(self, folder: Path, made_by: Mapping[str, Any]) -> None:
        """`made_by` is anything JSON. Raises InputError where the folder holds what something else made."""
        self.folder = folder
        writable_folder(folder)
        path = folder / _MADE_BY
        if path.is_file() and read_json(path) != dict(made_by):
            raise InputError(
                f"{folder} holds predictions of another checkpoint, or made in another way: name another folder."
            )
        if not path.is_file() and any(folder.glob("*.png")):
            raise InputError(
                f"{folder} holds PNGs already, which would be taken for predictions: name an empty folder."
            )
        write_json(path, dict(made_by))

    def path_of(self, image: Path) -> Path:
        """Where an image's prediction belongs."""
        return self.folder / f"{image.stem.removesuffix('_leftImg8bit')}_labelIds.png"

    def read(self, image: Path) -> NDArray[np.uint8] | None:
        """The train ids uint8 `[H,W]` that were written before, if they were."""
        path = self.path_of(image)
        if not path.is_file():
            return None
        ids = read_values(path)
        table = np.array([TRAIN_ID_OF.get(value, IGNORE) for value in range(256)], np.uint8)
        return np.asarray(table[ids], np.uint8)

    def write(self, image: Path, train_ids: NDArray[np.uint8]) -> None:
        """Write a prediction, train ids uint8 `[H,W]`."""
        with new_file(self.path_of(image)) as temporary:
            temporary.write_bytes(cv2.imencode(".png", _ID_OF[train_ids])[1].tobytes())
