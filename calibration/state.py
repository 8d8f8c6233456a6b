"""The statistics of a collection that was interrupted: one .npz file without pickles, whole or absent."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibration.statistics import TensorStatistics
from splitmerge.files import new_file

__all__ = ["State", "read_state", "write_state"]

_NUMBERS = ("exponent", "count", "zeros")
_CHANNELS = ("lowest", "highest", "totals")


@dataclass(frozen=True)
class State:
    """Statistics of the first `images` images, whose hash is `data_sha256`. `key` says what is collected."""

    key: Mapping[str, Any]
    images: int
    data_sha256: str
    statistics: dict[str, TensorStatistics]


def write_state(path: Path, state: State) -> None:
    """Write `state` to `path` (.npz). Raises InputError where it cannot be written."""
    head = {
        "key": state.key,
        "images": state.images,
        "data_sha256": state.data_sha256,
        # JSON keeps every digit of a float64.
        "tensors": [_numbers(statistics) for statistics in state.statistics.values()],
    }
    with new_file(path) as temporary, temporary.open("wb") as file:
        histograms = np.stack([s.histogram for s in state.statistics.values()])
        np.savez_compressed(file, head=np.array(json.dumps(head)), histograms=histograms)


def read_state(path: Path, key: Mapping[str, Any]) -> State | None:
    """The state in `path`, None where there is none, or it cannot be read, or is of another collection than `key`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            head, histograms = json.loads(str(file["head"])), file["histograms"]
        if head["key"] != json.loads(json.dumps(key)):
            return None
        statistics = {}
        for numbers, histogram in zip(head["tensors"], histograms, strict=True):
            numbers |= {field: np.array(numbers[field], np.float64) for field in _CHANNELS}
            statistics[numbers["name"]] = TensorStatistics(histogram=histogram, **numbers)
        return State(key, head["images"], head["data_sha256"], statistics)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None


def _numbers(statistics: TensorStatistics) -> dict[str, Any]:
    channels = {field: getattr(statistics, field).tolist() for field in _CHANNELS}
    return {field: getattr(statistics, field) for field in ("name", *_NUMBERS)} | channels
