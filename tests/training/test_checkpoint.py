"""Checkpoints: what is saved comes back, and nothing damaged or foreign is taken."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from splitmerge.errors import CheckpointError
from splitmerge.labels import CITYSCAPES
from training.checkpoint import load_checkpoint, save_checkpoint
from training.models import create_model


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, create_model("smp18", 19, 4), "smp18", CITYSCAPES, {"step": 7})
    return path


def rewrite(path: Path, tensors=None, **header) -> None:  # type: ignore[no-untyped-def]
    with safe_open(path, framework="pt") as file:
        old = json.loads(file.metadata()["splitmerge"])
    save_file(tensors or load_file(path), path, metadata={"splitmerge": json.dumps({**old, **header})})


def test_round_trip(saved: Path) -> None:
    checkpoint = load_checkpoint(saved)
    assert (checkpoint.name, checkpoint.width, checkpoint.classes) == ("smp18", 4, CITYSCAPES)
    assert checkpoint.notes == {"step": 7}
    assert not checkpoint.model.training
    state = checkpoint.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in load_file(saved).items())
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint .*gone\.safetensors"):
        load_checkpoint(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_damaged(saved: Path, damage: str) -> None:
    data = saved.read_bytes()
    saved.write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "text": b"hello " * 100}[damage])
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        load_checkpoint(saved)


def test_nan_weights(saved: Path) -> None:
    tensors = load_file(saved)
    tensors["layer3.0.conv2.weight"][0, 0, 0, 0] = float("nan")
    rewrite(saved, tensors)
    with pytest.raises(CheckpointError, match=r"NaN or infinite values in layer3\.0\.conv2\.weight"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"model": "smp34"}, "does not hold a smp34"),
        ({"width": 8}, "does not hold a smp18 of width 8"),
        ({"classes": [{"name": "a", "rgb": [0, 0, 0]}] * 11}, "11 classes"),
        ({"model": "unet"}, "no model named 'unet'"),
        ({"mean": [0.5]}, "header without a usable"),
        ({"mean": [0.5, 0.5, float("nan")]}, "usable triple"),
        ({"std": [0.2, 0.0, 0.2]}, "usable std"),
        ({"classes": [{"name": "a", "rgb": [0, 0, 256]}] * 19}, "usable colour"),
    ],
)
def test_another_network(saved: Path, header: dict[str, object], words: str) -> None:
    rewrite(saved, **header)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(saved)


def test_a_foreign_safetensors_file(saved: Path) -> None:
    save_file(load_file(saved), saved)
    with pytest.raises(CheckpointError, match="does not say which network"):
        load_checkpoint(saved)
