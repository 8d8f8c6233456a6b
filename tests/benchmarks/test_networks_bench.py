"""Networks side by side: trained alike, scored as PyTorch scores them, skipped where done, measured apart."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks import networks
from benchmarks.networks import NETWORKS, config_of, parse, run, table
from benchmarks.networks_cost import multiply_adds, parameters_of, width_of
from benchmarks.networks_picture import draw
from benchmarks.reproduction import confusions_of
from benchmarks.reproduction_table import Network
from splitmerge.errors import InputError
from training.checkpoint import load_checkpoint
from training.data import open_dataset
from training.metrics import iou
from training.models import create_model, list_models

SIZE = (64, 128)
TINY = ["--parameters", "3000", "--steps", "2", "--batch", "2", "--images", "3", "--scored-images", "2"]
SIZES = ["--size", "64x128", "--crop", "64x64", "--frames", "2"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks, trained by the first command and measured by the second."""
    folder = tmp_path_factory.mktemp("networks")
    assert run(_arguments(folder)) == 0
    assert run(_arguments(folder, "--measure", "--picture", str(folder / "a.png"))) == 0
    return folder


def _arguments(folder: Path, *more: str) -> Any:
    places = ["--out", str(folder), "--cache", str(folder / "cache"), "--json", str(folder / "a.json")]
    return parse(["--networks", "smp18", "fcn32s-18", *places, *TINY, *SIZES, *more])


def test_scores_are_those_of_pytorch(done: Path) -> None:
    """The reproduction's way to score, without ONNX, on the same fresh images."""
    images = open_dataset("streets", SIZE, 2, seed=1)
    for row in json.loads((done / "a.json").read_text())["rows"]:
        checkpoint = load_checkpoint(done / row["model"] / "last.safetensors")
        expected = Network(row["model"], {0: {1: iou(confusions_of(checkpoint, images)[1])}})
        assert checkpoint.notes["step"] == 2
        assert row["miou"] == pytest.approx(expected.miou()[0], abs=1e-3)
        assert row["thin"] == pytest.approx(expected.thin()[0], abs=1e-3)
        assert 0 <= row["boundary_iou"] <= 1 and row["miou"] > 0


def test_costs_are_written_for_each_way_to_run(done: Path) -> None:
    smp, fcn = json.loads((done / "a.json").read_text())["rows"]
    assert smp["parameters"] == fcn["parameters"] == sum(p.numel() for p in create_model("smp18", 19, 1).parameters())
    assert smp["multiply_adds"]["64x128"] > 50 * fcn["multiply_adds"]["64x128"]
    assert smp["measured"].keys() == {"machine", "streamed", "whole"} and fcn["measured"].keys() == {"machine", "whole"}
    assert all(row["measured"]["whole"]["median_ms"] > 0 for row in (smp, fcn))
    picture = cv2.imread(str(done / "a.png"))
    assert picture is not None and picture.std() > 0


def test_what_is_done_is_not_done_again(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "train", lambda *_: pytest.fail("trained again"))
    assert run(_arguments(done)) == 0


def test_another_training_in_the_same_folder_is_refused_and_told(
    done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(_arguments(done, "--networks", "fcn32s-18", "--steps", "3")) == InputError.exit_code
    assert "fcn32s-18 holds a training with steps 2, not 3" in capsys.readouterr().err


def test_nothing_is_measured_that_is_not_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(_arguments(tmp_path, "--measure", "--networks", "fcn32s-18")) == InputError.exit_code
    assert "run without --measure first" in capsys.readouterr().err


def test_trainings_differ_in_the_network_alone() -> None:
    arguments = parse(["--out", "somewhere"])
    configs = [config_of(name, arguments) for name in ("smp18", "ldn121-64-4")]
    own = {"model", "width", "lr", "weight_decay"}
    first, second = ({k: v for k, v in vars(config).items() if k not in own} for config in configs)
    assert first == second and set(NETWORKS) <= set(list_models())


@pytest.mark.parametrize("name", ["smp18", "dpn68-32-4"])
def test_the_width_is_the_one_nearest_to_the_parameters(name: str) -> None:
    counts = {width: parameters_of(name, width) for width in range(1, 12)}
    for wanted in (counts[1] - 9, counts[4], (counts[6] + 2 * counts[7]) // 3):
        assert width_of(name, wanted) == min(counts, key=lambda width: abs(counts[width] - wanted))


def test_multiply_adds_of_a_small_network_by_hand() -> None:
    """FCN32s-18 of width 1 on 32x32: the 7x7 stem at 16x16, each stage's convolutions, the classifier."""
    stem, stages = 16 * 16 * 7 * 7 * 3, 0
    for channels, before, side in ((1, 1, 8), (2, 1, 4), (4, 2, 2), (8, 4, 1)):
        shortcut = before if before != channels else 0
        stages += side * side * channels * (9 * (before + 3 * channels) + shortcut)
    assert multiply_adds("fcn32s-18", 1, (32, 32)) == stem + stages + 8 * 19


def test_crowded_points_are_all_named(tmp_path: Path) -> None:
    """Networks at one place: each further name adds ink of its own, and so hides none before it."""
    ends = [_row("smp18", 0.4, 10**11), _row("fcn8s-18", 0.2, 10**9)]
    ink = []
    for count in range(len(NETWORKS)):
        rows = ends + [_row(name, 0.3, 10**10) for name in NETWORKS[:count]]
        draw(tmp_path / "a.png", rows)
        picture = cv2.imread(str(tmp_path / "a.png"))
        assert picture is not None and table(rows).count("\n") == len(rows) + 1
        ink.append(int(np.count_nonzero(picture.min(axis=2) < 200)))
    assert np.diff(ink).min() > 100


def _row(name: str, score: float, cost: int) -> dict[str, Any]:
    scores = {"miou": score, "thin": score / 2, "boundary_iou": score / 3}
    return {"model": name, "width": 8, "parameters": 10**6, "multiply_adds": {"64x128": cost}, **scores}
