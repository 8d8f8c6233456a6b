"""Label maps of the frames that an overlay's file does not have for sure yet, so that none is computed twice."""

import os
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.growing_masks import read_labels, write_image
from splitmerge.files import sync_folder

__all__ = ["KeptLabels"]


class KeptLabels:
    """A hidden folder beside `place` of a few label maps, by their frames' numbers."""

    def __init__(self, place: Path) -> None:
        self._folder = place.with_name(f".{place.name}.labels")
        self._unsynced: list[Path] = []

    def begin(self) -> None:
        """Hold none."""
        self.discard()
        self._folder.mkdir(parents=True)

    def write(self, index: int, labels: NDArray[np.uint8]) -> None:
        """Hold the labels uint8 [H,W] of a frame."""
        path = self._folder / f"{index:06d}.png"
        write_image(path, labels)
        self._unsynced.append(path)

    def read(self, index: int) -> NDArray[np.uint8] | None:
        """The labels of a frame, None where they are not here."""
        return read_labels(self._folder / f"{index:06d}.png")

    def sync(self) -> None:
        """Have them on the disk itself."""
        for path in self._unsynced:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        if self._unsynced:
            sync_folder(self._folder)
        self._unsynced.clear()

    def forget(self, before: int) -> None:
        """Let go of the frames before this one."""
        self._unsynced = [path for path in self._unsynced if int(path.stem) >= before]
        for path in self._folder.glob("*.png"):
            if int(path.stem) < before:
                path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Leave nothing."""
        self._unsynced.clear()
        shutil.rmtree(self._folder, ignore_errors=True)
