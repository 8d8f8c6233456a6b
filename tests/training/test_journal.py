"""What a run leaves to look at."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event
from toy_pictures import toy_set

from splitmerge.errors import InputError
from training.learning.curves import curves
from training.learning.gallery import best_and_worst, spread
from training.loop import TrainConfig, train

CONFIG = TrainConfig(width=2, crop=(64, 64), batch=2, steps=4, validate_every=2, tensorboard=True)


def test_a_run_leaves_pictures_and_events(tmp_path: Path) -> None:
    assert SummaryWriter  # the package is there
    train(CONFIG, toy_set(3, 1), toy_set(6, 2), tmp_path)
    for name, rows in (("samples/0000002", 4), ("samples/0000004", 4), ("best", 4), ("worst", 4)):
        assert cv2.imread(str(tmp_path / f"{name}.jpg")).shape == (rows * (192 + 18), 3 * 320 + 8, 3)
    assert cv2.imread(str(tmp_path / "curves.png")).shape == (520, 760, 3)
    data, scalars = next((tmp_path / "tensorboard").iterdir()).read_bytes(), []
    while data:  # records: length in 8 bytes, a sum in 4, the event, a sum in 4
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        scalars += [(event.step, value.tag) for value in event.summary.value]
        data = data[16 + length :]
    assert {(2, "loss"), (2, "miou"), (4, "miou"), (4, "samples")} <= set(scalars)


def test_tensorboard_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(InputError, match=r"pip install .splitmerge\[tensorboard\]"):
        train(CONFIG, toy_set(1, 1), toy_set(1, 2), tmp_path)
    train(replace(CONFIG, tensorboard=False), toy_set(1, 1), toy_set(1, 2), tmp_path)


def test_the_best_and_the_worst() -> None:
    scores = np.array([0.5, np.nan, 0.9, 0.1, 0.7])
    assert best_and_worst(scores, 2) == ([2, 4], [3, 0])
    assert spread(100) == [12, 37, 62, 87] and spread(2) == [0, 1]


def test_curves_of_one_row_and_of_scores_that_are_none() -> None:
    assert curves([{"step": 1, "loss": 0.0, "miou": float("nan")}]).shape == (520, 760, 3)
