"""Outputs that grow a frame at a time under a hidden name, `.NAME.partial.END`, and can be cut back and continued.

What an output is at any time: `path` is where it grows and `place` where it belongs. `publish` moves it there, `reopen`
takes it back. A killed process leaves it at `path`.
"""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from splitmerge.errors import InputError
from splitmerge.files import hidden, sync_folder, writable_folder
from splitmerge.labels import LabelClass, palette_bgr

if TYPE_CHECKING:
    from runtime.sinks import Result

__all__ = ["Growing", "GrowingMasks", "GrowingRecords", "read_labels", "unwritable", "write_image"]


class Growing(Protocol):
    """One output of a run."""

    place: Path

    def begin(self) -> None:
        """Begin anew, over what an earlier run left at the hidden name."""

    def found(self) -> int:
        """Take back what an earlier run left, wherever it is. Gives how many frames that has."""

    def reopen(self, frames: int) -> None:
        """Go on after the first `frames` of what was found."""

    def write(self, result: "Result") -> None:
        """Add a frame."""

    def sync(self) -> None:
        """Have what was written on the disk itself."""

    def close(self, frames: int) -> int:
        """End with the first `frames`. Gives how many there are: fewer where the disk has no room for the rest."""

    def publish(self) -> None:
        """Take the place of what is at `place`. To be called when closed."""

    def discard(self) -> None:
        """Leave nothing at the hidden name."""


class GrowingRecords:
    """A file of one line a frame. `line` makes it, without its end."""

    def __init__(self, place: Path, line: Callable[["Result"], str]) -> None:
        self.place, self.path, self._line = place, hidden(place), line
        self._fd: int | None = None

    def begin(self) -> None:
        self._open(os.O_TRUNC)

    def found(self) -> int:
        if not self.path.exists() and self.place.exists():
            self.place.replace(self.path)
        if not self.path.exists():
            return 0
        with self.path.open("rb") as file:
            return sum(line.endswith(b"\n") for line in file)

    def reopen(self, frames: int) -> None:
        self._open(0)
        self._cut(frames)

    def write(self, result: "Result") -> None:
        self._write((self._line(result) + "\n").encode())

    def sync(self) -> None:
        if self._fd is not None:
            os.fsync(self._fd)

    def close(self, frames: int) -> int:
        if self._fd is None:
            return 0
        frames = self._cut(frames)
        self.sync()
        fd, self._fd = self._fd, None
        os.close(fd)
        return frames

    def publish(self) -> None:
        self.path.replace(self.place)

    def discard(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        self.path.unlink(missing_ok=True)

    def _open(self, how: int) -> None:
        writable_folder(self.place.parent)
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | how, 0o666)
        except OSError as error:
            raise unwritable(self.place, error) from None

    def _write(self, data: bytes) -> None:
        # Without a buffer: what did not fit would be tried again when the file is closed.
        assert self._fd is not None
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            raise unwritable(self.place, error) from None

    def _cut(self, lines: int) -> int:
        """Leave the first lines, at most so many; gives how many they are."""
        assert self._fd is not None
        found = end = 0
        with self.path.open("rb") as file:
            for line in file:
                if found == lines or not line.endswith(b"\n"):
                    break
                found, end = found + 1, end + len(line)
        os.ftruncate(self._fd, end)
        os.lseek(self._fd, 0, os.SEEK_END)
        return found


class GrowingMasks:
    """A folder of `000000.png`, ...: gray class ids, or colours where `classes` are given."""

    def __init__(self, place: Path, classes: tuple[LabelClass, ...] | None = None) -> None:
        if place.is_dir():
            _check_replaceable(place)
        self.place = place.resolve()  # of a link, the folder itself is replaced
        self.path = hidden(self.place)
        self._table = None if classes is None else np.ascontiguousarray(palette_bgr(classes).reshape(256, 1, 3))
        self._unsynced: list[Path] = []

    def begin(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._make()

    def found(self) -> int:
        if not self.path.exists() and self.place.exists():
            self.place.replace(self.path)
        return len(list(self.path.iterdir())) if self.path.exists() else 0

    def reopen(self, frames: int) -> None:
        self._make()
        self._cut(frames)

    def read(self, index: int) -> NDArray[np.uint8] | None:
        """What was written of the frame with this number."""
        return read_labels(self.path / f"{index:06d}.png")

    def write(self, result: "Result") -> None:
        self.write_labels(result.frame.index, result.labels)

    def write_labels(self, index: int, labels: NDArray[np.uint8]) -> None:
        """Add the labels uint8 [H,W] of the frame with this number."""
        image = labels if self._table is None else np.asarray(cv2.applyColorMap(labels, self._table), np.uint8)
        path = self.path / f"{index:06d}.png"
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
        old = self.path.with_suffix(".old")
        shutil.rmtree(old, ignore_errors=True)
        if self.place.exists():
            self.place.replace(old)
        try:
            self.path.replace(self.place)
        except BaseException:
            if old.exists():
                old.replace(self.place)
            raise
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


def unwritable(path: Path, error: OSError) -> InputError:
    """The sentence for an output that the disk does not take."""
    return InputError(f"{path} cannot be written ({error.strerror or error}): make room on its disk.")


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
