"""The crops of each step, in order, prepared ahead by worker processes.

A step's crops are a pure function of its number. So workers may be any number, and a resumed training begins with the
very crops that come next, whatever had been prepared when it was killed.
"""

import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from splitmerge.errors import SplitmergeError
from training.data import Dataset
from training.learning.augment import crops_of_step
from training.learning.config import TrainConfig

__all__ = ["Batch", "batch_of_step", "batches"]


class Batch(NamedTuple):
    """Crops uint8 `[N,h,w,3]`, blue-green-red, labels uint8 `[N,h,w]`, and the images that they are of."""

    images_bgr: Tensor
    labels: Tensor
    indices: tuple[int, ...]


def batch_of_step(config: TrainConfig, images: Dataset, step: int, part: slice) -> Batch:
    """The crops of one step, or a part of them."""
    crops = crops_of_step(config, images, step, part)
    return Batch(torch.from_numpy(crops.images_bgr), torch.from_numpy(crops.labels), crops.indices)


def batches(config: TrainConfig, images: Dataset, first: int, part: slice) -> Iterator[Batch]:
    """The crops of the steps from `first` to the last. Raises InputError for an image that cannot be used."""
    steps = _Steps(config, images, part)
    workers = config.workers
    if workers:
        cv2.setNumThreads(0)  # OpenCV's pool does not live through a fork: a worker that asks for it waits for ever
    loader: DataLoader[Any] = DataLoader(
        steps,
        batch_size=None,
        sampler=range(first, config.steps),
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        worker_init_fn=_begin_worker if workers else None,
        collate_fn=_as_it_is,
        pin_memory=bool(workers) and torch.cuda.is_available(),
    )
    for found in loader:
        if isinstance(found, SplitmergeError):
            raise found
        yield Batch(*found)


class _Steps(TorchDataset[Any]):
    """Batches by step; an error of the data travels as a value, for its words would not survive a worker's end."""

    def __init__(self, config: TrainConfig, images: Dataset, part: slice) -> None:
        self.config, self.images, self.part = config, images, part

    def __getitem__(self, step: int) -> Batch | SplitmergeError:
        try:
            return batch_of_step(self.config, self.images, step, self.part)
        except SplitmergeError as error:
            return error


def _begin_worker(number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's, which ends its workers


def _as_it_is(value: object) -> object:
    return value
