"""The checkpoint that comes with the repository, and the way from training to a score through the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from splitmerge.cli import main
from training.checkpoint import load_checkpoint
from training.evaluate import confusion_of
from training.metrics import mean_iou
from training.streets import Streets

CHECKPOINT = Path(__file__).parents[1] / "training" / "checkpoints" / "smp18-streets.safetensors"


def test_the_shipped_checkpoint_is_small_and_segments_streets_it_never_saw() -> None:
    assert CHECKPOINT.stat().st_size <= 4e6
    checkpoint = load_checkpoint(CHECKPOINT)
    assert checkpoint.name == "smp18"
    unseen = Streets("val", (256, 512), 8, seed=1)
    # 0.76 over 100 images; one network of fresh weights scores about 0.02
    assert mean_iou(confusion_of(checkpoint.model, unseen, stride=8)) > 0.6


def test_from_training_to_a_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    sizes = ["--size", "64x96"]
    assert main(["data", "render", "streets", "--frames", "6", *sizes, "--out", str(data)]) == 0
    training = ["--data", str(data), "--width", "2", "--crop", "64x64", "--batch", "2", "--steps", "2"]
    assert main(["train", *training, "--out", str(tmp_path / "run")]) == 0
    best = tmp_path / "run" / "best.safetensors"
    package = str(tmp_path / "package")
    assert main(["export", "--checkpoint", str(best), *sizes, "--package", package]) == 0
    assert main(["build", "--package", package]) == 0
    record = tmp_path / "compare.json"
    arguments = ["--package", package, "--data", str(data), "--json", str(record)]
    assert main(["compare", *arguments]) == 0
    scores = json.loads(record.read_text())
    assert scores["images"] == 6
    assert scores["pixel_agreement"] > 0.999
    assert np.isclose(scores["reference"]["miou"], scores["engine"]["miou"], atol=1e-3)
    assert "mIoU" in capsys.readouterr().out


def test_training_that_cannot_be_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["--data", str(tmp_path / "none")], ["--model", "smp19"], ["--size", "16x64"], ["--batch", "0"]):
        few = ["--images", "1", "--cache", str(tmp_path / "cache")]
        code = main(["train", *few, "--out", str(tmp_path / "run"), *wrong])
        error = capsys.readouterr().err
        assert code == 2, wrong
        assert error.startswith("splitmerge: ") and error.count("\n") == 1, error
        assert not (tmp_path / "run").exists()
