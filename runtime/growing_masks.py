"""Label maps as a folder of images that grows a frame at a time (`runtime.growing`)."""

import os
import re
import shutil
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.growing import Taken, unwritable
from splitmerge.errors import InputError
from splitmerge.files import hidden, sync_folder, writable_folder
from splitmerge.labels import LabelClass, palette_bgr

if TYPE_CHECKING:
    from runtime.sinks import Result

__all__ = ["GrowingMasks", "read_labels", "write_image"]


class GrowingMasks:
    """A folder of `000000.png`, ...: gray class ids, or colours where `classes` are given.

    Of a source with `gaps`, a live one, not every number has a frame.
    """

    def __init__(self, place: Path, classes: tuple[LabelClass, ...] | None = None, gaps: bool = False) -> None:
        if place.is_dir():
            _check_replaceable(place)
        self.place = place.resolve()  # of a link, the folder itself is replaced
        self.path = hidden(self.place)
        self._table = None if classes is None else np.ascontiguousarray(palette_bgr(classes).reshape(256, 1, 3))
        self._unsynced: list[Path] = []
        self._gaps, self._earlier = gaps, Taken(self.place, self.path)

    def begin(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._make()

    def found(self) -> int:
        if not self._earlier.where.exists():
            return 0
        there = {path.name for path in self._earlier.where.iterdir()}
        return len(there) if self._gaps else next(index for index in count() if _name(index) not in there)

    def reopen(self, frames: int) -> None:
        self._earlier.take()
        self._make()
        self._cut(frames)

    def give_back(self) -> None:
        self._earlier.give_back()

    def read(self, index: int) -> NDArray[np.uint8] | None:
        """What was written of the frame with this number."""
        return read_labels(self._earlier.where / _name(index))

    def write(self, result: "Result") -> None:
        self.write_labels(result.frame.index, result.labels)

    def write_labels(self, index: int, labels: NDArray[np.uint8]) -> None:
        """Add the labels uint8 [H,W] of the frame with this number."""
        image = labels if self._table is None else np.asarray(cv2.applyColorMap(labels, self._table), np.uint8)
        path = self.path / _name(index)
        write_image(path, image)
        self._unsynced.append(path)

    def sync(self) -> None:
        for path in self._unsynced:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        self._unsynced.clear()
        sync_folder(self.path)

    def close(self, frames: int) -> int:
        frames = self._cut(frames)
        self.sync()
        return frames

    def publish(self) -> None:
        old = self.path.with_name(f"{self.path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if self.place.exists():
            self.place.replace(old)
        try:
            self.path.replace(self.place)
        except BaseException:
            if old.exists():
                old.replace(self.place)
            raise
        sync_folder(self.place.parent)
        shutil.rmtree(old, ignore_errors=True)

    def discard(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def _make(self) -> None:
        writable_folder(self.place.parent)
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(self.place, error) from None

    def _cut(self, frames: int) -> int:
        paths = sorted(self.path.iterdir(), key=lambda path: (len(path.name), path.name))
        for path in paths[frames:]:
            path.unlink()
        self._unsynced = [path for path in self._unsynced if path.exists()]
        return min(frames, len(paths))


def _name(index: int) -> str:
    return f"{index:06d}.png"


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image file; its ending chooses the format. Raises InputError where that fails."""
    try:
        done, data = cv2.imencode(path.suffix, image)
    except cv2.error:
        done = False
    if not done:
        raise InputError(f"{path} cannot be encoded as an image: end its name in .png or .jpg.")
    try:
        path.write_bytes(data.tobytes())  # rather than imwrite, which on Windows takes ASCII names only
    except OSError as error:
        raise unwritable(path, error) from None


def read_labels(path: Path) -> NDArray[np.uint8] | None:
    """A label map uint8 [H,W] that was written as an image; None where it is missing or cut off."""
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError:
        return None
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    return None if image is None else np.asarray(image, np.uint8)


def _check_replaceable(folder: Path) -> None:
    for path in folder.iterdir():
        if not re.fullmatch(r"\d{6,}\.png", path.name):
            raise InputError(
                f"{folder} holds {path.name}, which is no label map, and the whole folder would be replaced: "
                "name a new folder."
            )
