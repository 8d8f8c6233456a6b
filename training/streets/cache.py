"""Rendered pictures kept on disk as two memory-mapped arrays, so that training does not paint them each epoch."""

import os
import tempfile
from pathlib import Path
from typing import Protocol

import numpy as np

from training.streets.painter import Bytes

__all__ = ["Cached", "cached"]


class _Dataset(Protocol):
    @property
    def key(self) -> str: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Bytes, Bytes]: ...


class Cached:
    """The same `len()` and `[i]` as the data set it was made from; arrays are read-only views of files."""

    def __init__(self, images: Bytes, labels: Bytes) -> None:
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Bytes, Bytes]:
        return self._images[index], self._labels[index]


def cached(dataset: _Dataset, folder: str | Path) -> Cached:
    """`dataset` from `folder`, where it is rendered first unless whole files of this very key are there.

    Files are `KEY.images.npy` (uint8 `[N,H,W,3]`, BGR) and `KEY.labels.npy` (uint8 `[N,H,W]`).
    A short, damaged or differently shaped file is written anew.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = (folder / f"{dataset.key}.images.npy", folder / f"{dataset.key}.labels.npy")
    if not len(dataset):
        return Cached(np.zeros((0, 0, 0, 3), np.uint8), np.zeros((0, 0, 0), np.uint8))
    found = _load(dataset, paths)
    if found is None:
        _write(dataset, paths)
        found = _load(dataset, paths)
    if found is None:
        raise OSError(f"{paths[0]} and {paths[1]} do not read back as they were written; is the disk full?")
    return found


def _load(dataset: _Dataset, paths: tuple[Path, Path]) -> Cached | None:
    """Both files, if they have the right shape and their first and last pictures are the data set's."""
    try:
        images, labels = (np.load(path, mmap_mode="r", allow_pickle=False) for path in paths)
    except (OSError, ValueError, EOFError):
        return None
    last = len(dataset) - 1
    for index in {0, last}:
        image, label = dataset[index]
        shapes = (len(dataset), *image.shape), (len(dataset), *label.shape)
        if (images.shape, labels.shape) != shapes or images.dtype != np.uint8 or labels.dtype != np.uint8:
            return None
        if not (np.array_equal(images[index], image) and np.array_equal(labels[index], label)):
            return None
    return Cached(images, labels)


def _write(dataset: _Dataset, paths: tuple[Path, Path]) -> None:
    """Render everything into files beside the final ones, then rename."""
    image, label = dataset[0]
    beside = []
    try:
        for path in paths:
            handle, name = tempfile.mkstemp(prefix=path.name, suffix=".part", dir=path.parent)
            os.close(handle)
            beside.append(Path(name))
        count = len(dataset)
        images, labels = (
            np.lib.format.open_memmap(part, "w+", np.uint8, (count, *sample.shape))
            for part, sample in zip(beside, (image, label), strict=True)
        )
        for index in range(count):
            images[index], labels[index] = dataset[index]
        images.flush()
        labels.flush()
        del images, labels
        for part, path in zip(beside, paths, strict=True):
            part.replace(path)
    finally:
        for part in beside:
            part.unlink(missing_ok=True)
